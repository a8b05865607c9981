// The best firings of each latent, from a stream, each with what the latent does round it.
//
// What must be kept stands in saeops/catalog/strongest.py, in plain numpy. A latent is handled by one thread, and its
// firings in order, so results do not depend on the number of threads.
//
// T token, N entry (one latent firing on one token), F latent, S slot kept a latent, W token shown

#include <omp.h>

#include "rows.h"

namespace {

// Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators.
inline uint64_t splitmix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// Codes of whole windows, token t's being entries offsets[t] to offsets[t + 1] with latents ascending.
struct Codes {
  const int64_t *offsets, *latent;
  const float* value;
  const int64_t *row, *window;  // of each token
  int64_t tokens;
};

// What is kept of all latents; score −infinity and row −1 where a slot is empty.
struct Kept {
  int64_t slots;
  double* score;
  int64_t* row;
  float* shown;
};

// One latent's firings in these windows, in order of token.
struct Firings {
  std::vector<int64_t> row, window;
  std::vector<float> value;
  std::vector<double> score;
  int64_t n = 0;

  explicit Firings(int64_t most) : row(most), window(most), value(most), score(most) {}
};

// One latent's slots.
struct Slots {
  int64_t n, context;
  double* score;
  int64_t* row;
  float* shown;
  int64_t weakest;

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
    double least = INFINITY;
#pragma omp simd reduction(min : least)
    for (int64_t s = 0; s < n; s++) least = std::min(least, score[s]);
    weakest = -1;
    for (int64_t s = 0; s < n; s++)
      if (score[s] == least && (weakest < 0 || row[s] > row[weakest])) weakest = s;
  }

  // The best firing of each window takes the place of the weakest kept one, if it beats it.
  void offer(const Firings& firings) {
    const double* scores = firings.score.data();
    for (int64_t j = 0; j < firings.n; j++) {
      // Few beat it, and a window none of whose firings does is passed over.
      if (!(scores[j] > score[weakest])) continue;
      int64_t begin = j, end = j + 1;
      while (begin > 0 && firings.window[begin - 1] == firings.window[j]) begin--;
      while (end < firings.n && firings.window[end] == firings.window[j]) end++;
      put(firings, std::max_element(scores + begin, scores + end) - scores, begin, end);
      j = end - 1;
    }
  }

  void put(const Firings& firings, int64_t best, int64_t begin, int64_t end) {
    float* out = shown + weakest * (2 * context + 1);
    std::fill(out, out + 2 * context + 1, 0.f);
    for (int64_t j = begin; j < end; j++) {
      const int64_t place = firings.row[j] - firings.row[best] + context;
      if (place >= 0 && place <= 2 * context) out[place] = firings.value[j];
    }
    score[weakest] = firings.score[best];
    row[weakest] = firings.row[best];
    find_weakest();
  }
};

// The entries of the latents from `first` up to `last`, sorted by latent.
struct Sorted {
  struct Entry {
    int32_t token;
    float value;
  };
  std::vector<Entry> entries;
  std::vector<int64_t> offsets;

  Sorted(const Codes& codes, int64_t first, int64_t last) : offsets(last - first + 1, 0) {
    std::vector<int64_t> begin(codes.tokens), end(codes.tokens);
    for (int64_t t = 0; t < codes.tokens; t++) {
      const int64_t *from = codes.latent + codes.offsets[t], *to = codes.latent + codes.offsets[t + 1];
      begin[t] = std::lower_bound(from, to, first) - codes.latent;
      end[t] = std::lower_bound(from, to, last) - codes.latent;
      for (int64_t j = begin[t]; j < end[t]; j++) offsets[codes.latent[j] - first + 1]++;
    }
    for (int64_t f = 0; f < last - first; f++) offsets[f + 1] += offsets[f];
    entries.resize(offsets.back());
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    for (int64_t t = 0; t < codes.tokens; t++)
      for (int64_t j = begin[t]; j < end[t]; j++)
        entries[next[codes.latent[j] - first]++] = {static_cast<int32_t>(t), codes.value[j]};
  }
};

// Where to cut the latents so that each part fired about equally often so far.
std::vector<int64_t> equal_parts(const int64_t* count, int64_t F, int64_t parts) {
  int64_t total = F;
  for (int64_t f = 0; f < F; f++) total += count[f];
  std::vector<int64_t> cuts = {0};
  int64_t seen = 0;
  for (int64_t f = 0; f < F; f++) {
    seen += count[f] + 1;
    while (static_cast<int64_t>(cuts.size()) < parts && seen * parts >= total * static_cast<int64_t>(cuts.size()))
      cuts.push_back(f + 1);
  }
  cuts.resize(parts + 1, F);
  cuts[parts] = F;
  return cuts;
}

}  // namespace

extern "C" {

// Adds to counts, sums and largest values, and keeps the strongest firings and those of the best random score, at most
// one a window in each list; among equals the earliest.
void saeops_keep_strongest(const int64_t* offsets, const int64_t* latent, const float* value, const int64_t* row,
                           const int64_t* window, int64_t T, int64_t F, int64_t context, uint64_t seed, int64_t* count,
                           double* sum, float* largest, int64_t n_top, double* top_score, int64_t* top_row,
                           float* top_shown, int64_t n_drawn, double* drawn_score, int64_t* drawn_row,
                           float* drawn_shown) {
  const Codes codes = {offsets, latent, value, row, window, T};
  const Kept top = {n_top, top_score, top_row, top_shown}, drawn = {n_drawn, drawn_score, drawn_row, drawn_shown};
  const uint64_t mixed_seed = splitmix(seed);
  const int64_t parts = omp_get_max_threads();
  const std::vector<int64_t> cuts = equal_parts(count, F, parts);
#pragma omp parallel for schedule(static, 1)
  for (int64_t p = 0; p < parts; p++) {
    const Sorted sorted(codes, cuts[p], cuts[p + 1]);
    Firings firings(T);
    for (int64_t f = cuts[p]; f < cuts[p + 1]; f++) {
      const Sorted::Entry* own = sorted.entries.data() + sorted.offsets[f - cuts[p]];
      const int64_t n = firings.n = sorted.offsets[f - cuts[p] + 1] - sorted.offsets[f - cuts[p]];
      if (n == 0) continue;
      double total = 0;
      for (int64_t j = 0; j < n; j++) {
        firings.row[j] = row[own[j].token];
        firings.window[j] = window[own[j].token];
        firings.score[j] = firings.value[j] = own[j].value;
        total += own[j].value;
        largest[f] = std::max(largest[f], own[j].value);
      }
      count[f] += n;
      sum[f] += total;
      Slots(top, f, context).offer(firings);
      const uint64_t mixed_latent = splitmix(static_cast<uint64_t>(f));
#pragma omp simd
      for (int64_t j = 0; j < n; j++) {
        const uint64_t mixed = splitmix(splitmix(static_cast<uint64_t>(firings.row[j]) ^ mixed_latent) ^ mixed_seed);
        firings.score[j] = static_cast<double>(mixed >> 11) / 9007199254740992.0;  // 2^53
      }
      Slots(drawn, f, context).offer(firings);
    }
  }
}

}  // extern "C"
