// The best firings of each latent, from a stream, each with what the latent does round it.
//
// What must be kept stands in saeops/catalog/strongest.py, in plain numpy. A latent is handled by one thread, and its
// firings in order, so results do not depend on the number of threads.
//
// T token, N entry (one latent firing on one token), F latent, S slot kept a latent, W token shown

#include "rows.h"

namespace {

constexpr int64_t kGrain = 64;  // latents a thread takes at a time: some fire often, most seldom

struct Firing {
  int64_t row, window;
  float value;
};

// Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators.
inline uint64_t splitmix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

inline double random_score(uint64_t mixed_latent, uint64_t mixed_seed, int64_t row) {
  const uint64_t mixed = splitmix(splitmix(static_cast<uint64_t>(row) ^ mixed_latent) ^ mixed_seed);
  return static_cast<double>(mixed >> 11) / 9007199254740992.0;
}

// What is kept of all latents; score −infinity and row −1 where a slot is empty.
struct Kept {
  int64_t slots;
  double* score;
  int64_t* row;
  float* shown;
};

// One latent's slots.
struct Slots {
  int64_t n, context;
  double* score;
  int64_t* row;
  float* shown;
  int64_t weakest = 0;

  Slots(const Kept& of, int64_t f, int64_t context)
      : n(of.slots),
        context(context),
        score(of.score + f * of.slots),
        row(of.row + f * of.slots),
        shown(of.shown + f * of.slots * (2 * context + 1)) {
    find_weakest();
  }

  // Among equals the latest goes first.
  void find_weakest() {
    weakest = 0;
    for (int64_t s = 1; s < n; s++)
      if (score[s] < score[weakest] || (score[s] == score[weakest] && row[s] > row[weakest])) weakest = s;
  }

  // A window's best, if it beats the weakest; begin to end are the latent's firings in that window.
  void offer(double its_score, const Firing* best, const Firing* begin, const Firing* end) {
    if (!(its_score > score[weakest])) return;
    const int64_t width = 2 * context + 1;
    float* out = shown + weakest * width;
    std::fill(out, out + width, 0.f);
    const Firing *first = best, *last = best + 1;
    while (first > begin && first[-1].row >= best->row - context) first--;
    while (last < end && last->row <= best->row + context) last++;
    for (const Firing* each = first; each < last; each++) out[each->row - best->row + context] = each->value;
    score[weakest] = its_score;
    row[weakest] = best->row;
    find_weakest();
  }
};

}  // namespace

extern "C" {

// Entries of whole windows, latent f's being order[offsets[f]] up to order[offsets[f + 1]], in order of token.
// Adds to counts, sums and largest values, and keeps the strongest firings and those of the best random score, at most
// one a window in each list; among equals the earliest.
void saeops_keep_strongest(const int32_t* offsets, const int32_t* order, const int32_t* token, const float* value,
                           const int64_t* row, const int64_t* window, int64_t T, int64_t F, int64_t context,
                           uint64_t seed, int64_t* count, double* sum, float* largest, int64_t n_top, double* top_score,
                           int64_t* top_row, float* top_shown, int64_t n_drawn, double* drawn_score,
                           int64_t* drawn_row, float* drawn_shown) {
  const Kept top = {n_top, top_score, top_row, top_shown};
  const Kept drawn = {n_drawn, drawn_score, drawn_row, drawn_shown};
  const uint64_t mixed_seed = splitmix(seed);
#pragma omp parallel
  {
    std::vector<Firing> firings(T);
#pragma omp for schedule(dynamic, kGrain)
    for (int64_t f = 0; f < F; f++) {
      const int64_t n = offsets[f + 1] - offsets[f];
      if (n == 0) continue;
      const uint64_t mixed_latent = splitmix(static_cast<uint64_t>(f));
      for (int64_t j = 0; j < n; j++) {
        const int32_t entry = order[offsets[f] + j];
        firings[j] = {row[token[entry]], window[token[entry]], value[entry]};
        sum[f] += value[entry];
      }
      count[f] += n;
      Slots strongest(top, f, context), sampled(drawn, f, context);
      const Firing* end = firings.data() + n;
      for (const Firing *begin = firings.data(), *next; begin < end; begin = next) {
        const Firing *highest = begin, *luckiest = begin;
        double luck = -1;
        for (next = begin; next < end && next->window == begin->window; next++) {
          const double score = random_score(mixed_latent, mixed_seed, next->row);
          if (next->value > highest->value) highest = next;
          if (score > luck) luck = score, luckiest = next;
        }
        largest[f] = std::max(largest[f], highest->value);
        strongest.offer(highest->value, highest, begin, next);
        sampled.offer(luck, luckiest, begin, next);
      }
    }
  }
}

}  // extern "C"
