// The K largest of W·x + b without the dense fp32 product.
//
// Products of rounded numbers, bfloat16 or bytes, place every value in an interval; fp32 products settle the few that
// matter. The processor multiplies pairs of bfloat16 twice as fast as fp32 and fours of bytes four times as fast.
// Of bytes one side must be unsigned: weights are stored with an offset of 128.
//
// Everything rounded is kept in lanes of 32 bits: 2 bfloat16 or 4 bytes. A panel holds 64 latents: for every lane,
// that lane of each.

#include <omp.h>

#include "rows.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BF16__)

namespace {

constexpr int64_t kPanel = 64;     // latents whose products are made together: 4 registers
constexpr int64_t kTile = 6;       // tokens beside them: 24 sums stay in registers
constexpr int64_t kBlock = 240;    // tokens for which a panel is read once
constexpr float kRounding = 2e-5;  // of hundreds of fp32 sums, relative to the lengths of what is multiplied

// One latent that may be among the largest of a token.
struct Candidate {
  float most, least;  // what its value lies between
  int32_t latent;
};

// The candidates of one token, and the level that some `rank` of them are known to reach.
struct Candidates {
  static constexpr int64_t kRoom = 512;
  Candidate entries[kRoom];
  int64_t count;
  float floor;
  bool overflown;

  void clear() {
    count = 0;
    floor = -INFINITY;
    overflown = false;
  }

  // Raise the floor as far as can be, and drop who cannot reach it. Without margins that leaves `rank` of them.
  void shrink(int64_t rank, bool bounded, float* scratch) {
    if (count <= rank) return;
    for (int64_t j = 0; j < count; j++) scratch[j] = entries[j].least;
    std::nth_element(scratch, scratch + rank - 1, scratch + count, std::greater<float>());
    floor = std::max(floor, scratch[rank - 1]);
    int64_t above = 0, kept = 0;
    for (int64_t j = 0; j < count; j++) above += entries[j].most > floor;
    int64_t level = bounded ? count : rank - above;
    for (int64_t j = 0; j < count; j++)
      if (entries[j].most > floor || (entries[j].most == floor && level-- > 0)) entries[kept++] = entries[j];
    count = kept;
  }
};

// One panel of latents, and what turns their sums into values and bounds.
struct Panel {
  const uint32_t* lanes;
  const float *scale, *bias, *length, *rounding;  // length: of the rounded row; rounding: of what rounding left out
  int32_t first;
};

// Tokens beside a panel, in units of each token's scale.
struct Tile {
  const uint32_t* lanes;
  const float *unit, *length, *rounding;  // unit: 1 / scale
  const int32_t* offset;
};

// sum += products of what two lanes hold. As instructions of their own, since with the intrinsics the compiler moves
// every sum through a second register and spills half of them.
struct Bytes {
  static inline void add(__m512i& sum, __m512i latents, __m512i token) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(latents), "v"(token));
  }
  static inline __m512 value(__m512i sum) { return _mm512_cvtepi32_ps(sum); }
};

struct Halves {
  static inline void add(__m512i& sum, __m512i latents, __m512i token) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(latents), "v"(token));
  }
  static inline __m512 value(__m512i sum) { return _mm512_castsi512_ps(sum); }
};

// Bounds of kRows tokens' values with one panel; who may reach a token's floor joins its candidates.
//
// With W = W' + u and x = x' + v, primes for what was rounded: W·x = W'·x' + W'·v + u·x, and by
// Cauchy-Schwarz the last two are at most |W'||v| + |u||x|. `slack` 0 takes the product as it is.
template <typename Kind, int kRows>
void score_panel(const Tile& tile, int64_t lanes, const Panel& panel, float slack, int64_t rank, Candidates* lists,
                 float* scratch) {
  // Every loop over sums is unrolled, or they would live in memory.
  __m512i sum[kRows][4];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sum[r][j] = _mm512_set1_epi32(tile.offset[r]);
  }
  for (int64_t q = 0; q < lanes; q++) {
    const auto* block = reinterpret_cast<const __m512i*>(panel.lanes + q * kPanel);
    const __m512i a = _mm512_loadu_si512(block), b = _mm512_loadu_si512(block + 1);
    const __m512i c = _mm512_loadu_si512(block + 2), d = _mm512_loadu_si512(block + 3);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; r++) {
      const __m512i v = _mm512_set1_epi32(static_cast<int32_t>(tile.lanes[r * lanes + q]));
      Kind::add(sum[r][0], a, v);
      Kind::add(sum[r][1], b, v);
      Kind::add(sum[r][2], c, v);
      Kind::add(sum[r][3], d, v);
    }
  }
  alignas(64) int32_t products[kRows][kPanel];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) _mm512_store_si512(products[r] + 16 * j, sum[r][j]);
  }
  for (int r = 0; r < kRows; r++) {
    Candidates& list = lists[r];
    const __m512 unit = _mm512_set1_ps(tile.unit[r]), level = _mm512_set1_ps(list.floor);
    const __m512 x_rounding = _mm512_set1_ps(slack * tile.rounding[r]);
    const __m512 x_length = _mm512_set1_ps(slack * tile.length[r]);
    alignas(64) float most[kPanel], margin[kPanel];
    uint64_t bits = 0;
    for (int j = 0; j < 64; j += 16) {
      const __m512 product = Kind::value(_mm512_load_si512(products[r] + j));
      const __m512 base = _mm512_mul_ps(_mm512_loadu_ps(panel.bias + j), unit);
      const __m512 value = _mm512_fmadd_ps(product, _mm512_loadu_ps(panel.scale + j), base);
      const __m512 from_w = _mm512_mul_ps(_mm512_loadu_ps(panel.rounding + j), x_length);
      const __m512 off = _mm512_fmadd_ps(_mm512_loadu_ps(panel.length + j), x_rounding, from_w);
      const __m512 upper = _mm512_add_ps(value, off);
      _mm512_store_ps(most + j, upper);
      _mm512_store_ps(margin + j, off);
      bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(upper, level, _CMP_GT_OQ)) << j;
    }
    if (bits == 0) continue;
    if (list.count + kPanel > Candidates::kRoom) {
      list.shrink(rank, slack > 0, scratch);
      if (list.count + kPanel > Candidates::kRoom) {
        list.overflown = true;
        list.count = 0;
        list.floor = INFINITY;
        continue;
      }
    }
    for (; bits; bits &= bits - 1) {
      const int l = __builtin_ctzll(bits);
      list.entries[list.count++] = {most[l], most[l] - 2 * margin[l], panel.first + l};
    }
  }
}

template <typename Kind>
void score_rows(int64_t rows, const Tile& tile, int64_t lanes, const Panel& panel, float slack, int64_t rank,
                Candidates* lists, float* scratch) {
  switch (rows) {
    case 6: return score_panel<Kind, 6>(tile, lanes, panel, slack, rank, lists, scratch);
    case 5: return score_panel<Kind, 5>(tile, lanes, panel, slack, rank, lists, scratch);
    case 4: return score_panel<Kind, 4>(tile, lanes, panel, slack, rank, lists, scratch);
    case 3: return score_panel<Kind, 3>(tile, lanes, panel, slack, rank, lists, scratch);
    case 2: return score_panel<Kind, 2>(tile, lanes, panel, slack, rank, lists, scratch);
    default: return score_panel<Kind, 1>(tile, lanes, panel, slack, rank, lists, scratch);
  }
}

// The fp32 values of the candidates that may be among the K largest; gives how many were computed, first in the list.
int64_t compute_values(Candidates& list, const float* token, const float* W, const float* b, int64_t D, int64_t K,
                       float unit, bool bounded, Scored* found) {
  Candidate* entries = list.entries;
  const auto compute = [&](int64_t j, int64_t end) {
    if (j + 2 < end) prefetch_row(W + entries[j + 2].latent * D, D);
    const int32_t f = entries[j].latent;
    found[j] = {dot(token, W + f * D, D) + b[f], f};
  };
  if (!bounded || list.count <= K) {
    for (int64_t j = 0; j < list.count; j++) compute(j, list.count);
    return list.count;
  }
  // The likeliest first: what the K of them reach, the others must be able to exceed.
  std::nth_element(entries, entries + K - 1, entries + list.count,
                   [](const Candidate& a, const Candidate& c) { return a.most > c.most; });
  float reached = INFINITY;
  for (int64_t j = 0; j < K; j++) {
    compute(j, K);
    reached = std::min(reached, found[j].value);
  }
  Candidate* end = std::partition(entries + K, entries + list.count,
                                  [&](const Candidate& a) { return a.most >= reached * unit; });
  const int64_t count = end - entries;
  for (int64_t j = K; j < count; j++) compute(j, count);
  return count;
}

// A row rounded to bytes; gives what a unit of a byte stands for. `offset` is added to each.
float to_bytes(const float* row, int64_t D, int32_t offset, uint8_t* bytes, float* squared, float* missed) {
  float most = 1e-30f;
#pragma omp simd reduction(max : most)
  for (int64_t d = 0; d < D; d++) most = std::max(most, std::abs(row[d]));
  const float step = most / 127, unit = 127 / most;
  float kept = 0, left = 0;
#pragma omp simd reduction(+ : kept, left)
  for (int64_t d = 0; d < D; d++) {
    const auto byte = static_cast<int32_t>(std::nearbyintf(row[d] * unit));
    const float stands_for = byte * step, rest = row[d] - stands_for;
    kept += stands_for * stands_for;
    left += rest * rest;
    bytes[d] = static_cast<uint8_t>(byte + offset);
  }
  *squared = kept;
  *missed = left;
  return step;
}

// A row rounded to bfloat16, the nearest, ties to even.
void to_halves(const float* row, int64_t D, uint16_t* halves, float* squared, float* missed) {
  float kept = 0, left = 0;
#pragma omp simd reduction(+ : kept, left)
  for (int64_t d = 0; d < D; d++) {
    uint32_t bits;
    std::memcpy(&bits, row + d, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    float stands_for;
    std::memcpy(&stands_for, &bits, 4);
    kept += stands_for * stands_for;
    left += (row[d] - stands_for) * (row[d] - stands_for);
    halves[d] = static_cast<uint16_t>(bits >> 16);
  }
  *squared = kept;
  *missed = left;
}

void set_lengths(float squared, float missed, float* length, float* rounding) {
  *length = std::sqrt(squared);
  *rounding = std::sqrt(missed) + kRounding * *length;
}

template <typename Kind>
void search(const float* x, const float* W, const float* b, const Tile& tokens, const Panel& latents, int64_t T,
            int64_t F, int64_t D, int64_t lanes, int64_t C, int64_t K, int32_t* latent, float* value, uint8_t* unsure) {
  const int64_t n_panels = (F + kPanel - 1) / kPanel, rank = C ? C : K;
  const float slack = C ? 0.f : 1.f;
#pragma omp parallel
  {
    std::vector<Candidates> lists(kBlock);
    std::vector<Scored> found(Candidates::kRoom);
    std::vector<float> scratch(Candidates::kRoom);
    // Each thread takes an equal share, and goes through it a block at a time.
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const int64_t last = T * (thread + 1) / threads;
    for (int64_t begin = T * thread / threads; begin < last; begin += kBlock) {
      const int64_t rows = std::min(kBlock, last - begin);
      for (int64_t r = 0; r < rows; r++) lists[r].clear();
      for (int64_t p = 0; p < n_panels; p++) {
        const int64_t f = p * kPanel;
        const Panel panel = {latents.lanes + f * lanes, latents.scale + f,    latents.bias + f,
                             latents.length + f,        latents.rounding + f, static_cast<int32_t>(f)};
        for (int64_t r = 0; r < rows; r += kTile) {
          const int64_t t = begin + r;
          const Tile tile = {tokens.lanes + t * lanes, tokens.unit + t, tokens.length + t, tokens.rounding + t,
                             tokens.offset + t};
          score_rows<Kind>(std::min(kTile, rows - r), tile, lanes, panel, slack, rank, lists.data() + r,
                           scratch.data());
        }
      }
      for (int64_t r = 0; r < rows; r++) {
        const int64_t t = begin + r;
        Candidates& list = lists[r];
        list.shrink(rank, slack > 0, scratch.data());
        unsure[t] = list.overflown || list.count < K;  // fewer only where a token holds NaN
        if (unsure[t]) {
          give_nan(K, latent + t * K, value + t * K);
          continue;
        }
        const int64_t count = compute_values(list, x + t * D, W, b, D, K, tokens.unit[t], C == 0, found.data());
        std::sort(found.begin(), found.begin() + count,
                  [](const Scored& a, const Scored& c) { return a.latent < c.latent; });
        keep_largest(found.data(), count, K, scratch.data(), latent + t * K, value + t * K);
      }
    }
  }
}

}  // namespace

#endif

extern "C" {

// Whether this processor has the instructions.
int32_t saeops_has_search() {
#if defined(__AVX512VNNI__) && defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

#if defined(__AVX512VNNI__) && defined(__AVX512BF16__)

// Rows of W, each dimension times stretch, rounded: to bytes, or to bfloat16. For each latent: what one unit stands
// for, the length of the rounded row, and the length of what rounding left out.
void saeops_pack_latents(const float* W, const float* stretch, int64_t F, int64_t D, int64_t lanes, int32_t as_bytes,
                         uint32_t* panels, float* scale, float* length, float* rounding) {
  const int64_t n_panels = (F + kPanel - 1) / kPanel;
#pragma omp parallel
  {
    std::vector<uint32_t> rounded(kPanel * lanes);
    std::vector<float> stretched(D);
#pragma omp for schedule(static)
    for (int64_t p = 0; p < n_panels; p++) {
      std::fill(rounded.begin(), rounded.end(), as_bytes ? 0x80808080u : 0u);
      for (int64_t l = 0; l < std::min(kPanel, F - p * kPanel); l++) {
        const int64_t f = p * kPanel + l;
        for (int64_t d = 0; d < D; d++) stretched[d] = W[f * D + d] * stretch[d];
        float squared, missed;
        uint32_t* out = rounded.data() + l * lanes;
        scale[f] = 1;
        if (as_bytes)
          scale[f] = to_bytes(stretched.data(), D, 128, reinterpret_cast<uint8_t*>(out), &squared, &missed);
        else
          to_halves(stretched.data(), D, reinterpret_cast<uint16_t*>(out), &squared, &missed);
        set_lengths(squared, missed, length + f, rounding + f);
      }
      uint32_t* out = panels + p * kPanel * lanes;
      for (int64_t q = 0; q < lanes; q++)
        for (int64_t l = 0; l < kPanel; l++) out[q * kPanel + l] = rounded[l * lanes + q];
    }
  }
}

// Tokens, each dimension over stretch, rounded in the same way. unit[t] is 1 over what one unit stands for, lengths
// are in units, and offset[t] takes off the latents' 128.
void saeops_pack_tokens(const float* x, const float* stretch, int64_t T, int64_t D, int64_t lanes, int32_t as_bytes,
                        uint32_t* rounded, float* unit, float* length, float* rounding, int32_t* offset) {
#pragma omp parallel
  {
    std::vector<float> shrunk(D);
#pragma omp for schedule(static)
    for (int64_t t = 0; t < T; t++) {
      for (int64_t d = 0; d < D; d++) shrunk[d] = x[t * D + d] / stretch[d];
      uint32_t* out = rounded + t * lanes;
      std::fill(out, out + lanes, 0u);
      float squared, missed, step = 1;
      offset[t] = 0;
      if (as_bytes) {
        step = to_bytes(shrunk.data(), D, 0, reinterpret_cast<uint8_t*>(out), &squared, &missed);
        int32_t sum = 0;
        for (int64_t d = 0; d < D; d++) sum += reinterpret_cast<const int8_t*>(out)[d];
        offset[t] = -128 * sum;
      } else {
        to_halves(shrunk.data(), D, reinterpret_cast<uint16_t*>(out), &squared, &missed);
      }
      unit[t] = 1 / step;
      set_lengths(squared, missed, length + t, rounding + t);
      // The token itself, not what it is rounded to, is what a latent's rounding is multiplied with.
      length[t] = (length[t] + rounding[t]) * unit[t];
      rounding[t] *= unit[t];
    }
  }
}

// The K largest of each token in order of latent, their values in fp32. `scale`, `length`, `rounding` and `bias` have
// room for whole panels; bias is −infinity past the last latent.
//
// C 0: every latent that may be among the K largest is computed, so the result is that of the dense product;
// unsure[t] is 1 where there were too many to tell. Else the C largest approximate values are computed.
void saeops_search_topk(const float* x, const float* W, const float* b, const uint32_t* x_lanes, const float* x_unit,
                        const float* x_length, const float* x_rounding, const int32_t* x_offset,
                        const uint32_t* panels, const float* scale, const float* length, const float* rounding,
                        const float* bias, int64_t T, int64_t F, int64_t D, int64_t lanes, int32_t as_bytes, int64_t C,
                        int64_t K, int32_t* latent, float* value, uint8_t* unsure) {
  const Tile tokens = {x_lanes, x_unit, x_length, x_rounding, x_offset};
  const Panel latents = {panels, scale, bias, length, rounding, 0};
  const auto run = as_bytes ? search<Bytes> : search<Halves>;
  run(x, W, b, tokens, latents, T, F, D, lanes, C, K, latent, value, unsure);
}

#endif

}  // extern "C"
