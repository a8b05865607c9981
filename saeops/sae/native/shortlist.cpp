// The shortlist encoder: int8 products find candidates, fp32 products score them.
//
// Activations become signed bytes, weights unsigned ones (offset 128), because the processor's instruction
// multiplies one of each. A panel holds 64 latents: for every 4 dimensions, 64 times 4 bytes.

#include <omp.h>

#include "rows.h"

#if defined(__AVX512VNNI__)

namespace {

constexpr int64_t kPanel = 64;   // latents whose int8 products are made together: 4 registers
constexpr int64_t kTile = 6;     // tokens beside them: 24 sums stay in registers
constexpr int64_t kBlock = 240;  // tokens for which a panel is read once

// Bytes of one latent or token: dimensions rounded up to whole groups of 4.
int64_t int8_width(int64_t D) { return (D + 3) / 4 * 4; }

inline bool larger(const Scored& a, const Scored& b) { return a.value > b.value; }

// The C best seen so far of one token, and what a value must exceed to join them.
struct Shortlist {
  static constexpr int64_t kRoom = 256;
  Scored entries[kRoom];
  int64_t count = 0;
  float floor = 0;

  void shrink(int64_t C) {
    if (count <= C) return;
    std::nth_element(entries, entries + C - 1, entries + count, larger);
    count = C;
    floor = entries[C - 1].value;
  }
};

// sum += unsigned bytes · signed bytes, by fours. As an instruction of its own, since with the intrinsic the
// compiler moves every sum through a second register and spills half of them.
inline void add_products(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// Approximate scores of kTile tokens with one panel; those above a token's floor join its shortlist.
// Scores are in units of the token's scale: (product · latent scale) + bias / token scale.
template <int kRows>
void score_panel(const int8_t* x, int64_t width, const uint8_t* panel, const float* scale, const float* bias,
                 const float* per_unit, const int32_t* offset, int32_t first, Shortlist* lists, int64_t C) {
  // Every loop over sums is unrolled, or they would live in memory.
  __m512i sum[kRows][4];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sum[r][j] = _mm512_set1_epi32(offset[r]);
  }
  for (int64_t q = 0; q < width; q += 4) {
    const auto* block = reinterpret_cast<const __m512i*>(panel + q * kPanel);
    const __m512i a = _mm512_loadu_si512(block), b = _mm512_loadu_si512(block + 1);
    const __m512i c = _mm512_loadu_si512(block + 2), d = _mm512_loadu_si512(block + 3);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; r++) {
      int32_t four;
      std::memcpy(&four, x + r * width + q, 4);
      const __m512i v = _mm512_set1_epi32(four);
      add_products(sum[r][0], a, v);
      add_products(sum[r][1], b, v);
      add_products(sum[r][2], c, v);
      add_products(sum[r][3], d, v);
    }
  }
  alignas(64) int32_t products[kRows][kPanel];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) _mm512_store_si512(products[r] + 16 * j, sum[r][j]);
  }
  for (int r = 0; r < kRows; r++) {
    Shortlist& list = lists[r];
    const __m512 unit = _mm512_set1_ps(per_unit[r]), level = _mm512_set1_ps(list.floor);
    alignas(64) float scores[kPanel];
    uint64_t bits = 0;
    for (int j = 0; j < 4; j++) {
      const __m512 base = _mm512_mul_ps(_mm512_loadu_ps(bias + 16 * j), unit);
      const __m512 score = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products[r] + 16 * j)), _mm512_loadu_ps(scale + 16 * j), base);
      _mm512_store_ps(scores + 16 * j, score);
      bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(score, level, _CMP_GT_OQ)) << 16 * j;
    }
    if (bits == 0) continue;
    if (list.count + kPanel > Shortlist::kRoom) list.shrink(C);
    for (; bits; bits &= bits - 1) {
      const int l = __builtin_ctzll(bits);
      list.entries[list.count++] = {scores[l], first + l};
    }
  }
}

void score_rows(int64_t rows, const int8_t* x, int64_t width, const uint8_t* panel, const float* scale,
                const float* bias, const float* per_unit, const int32_t* offset, int32_t first, Shortlist* lists,
                int64_t C) {
  switch (rows) {
    case 6: return score_panel<6>(x, width, panel, scale, bias, per_unit, offset, first, lists, C);
    case 5: return score_panel<5>(x, width, panel, scale, bias, per_unit, offset, first, lists, C);
    case 4: return score_panel<4>(x, width, panel, scale, bias, per_unit, offset, first, lists, C);
    case 3: return score_panel<3>(x, width, panel, scale, bias, per_unit, offset, first, lists, C);
    case 2: return score_panel<2>(x, width, panel, scale, bias, per_unit, offset, first, lists, C);
    default: return score_panel<1>(x, width, panel, scale, bias, per_unit, offset, first, lists, C);
  }
}

}  // namespace

#endif

extern "C" {

// Whether this processor has the instruction.
int32_t saeops_has_int8() {
#if defined(__AVX512VNNI__)
  return 1;
#else
  return 0;
#endif
}

#if defined(__AVX512VNNI__)

// Rows of W, each dimension times stretch, as panels of bytes; scale[f] is what one unit of a byte stands for.
void saeops_pack_latents(const float* W, const float* stretch, int64_t F, int64_t D, uint8_t* panels, float* scale) {
  const int64_t width = int8_width(D), n_panels = (F + kPanel - 1) / kPanel;
#pragma omp parallel
  {
    std::vector<uint8_t> bytes(kPanel * width);
    std::vector<float> stretched(D);
#pragma omp for schedule(static)
    for (int64_t p = 0; p < n_panels; p++) {
      std::fill(bytes.begin(), bytes.end(), 128);
      for (int64_t l = 0; l < std::min(kPanel, F - p * kPanel); l++) {
        const float* row = W + (p * kPanel + l) * D;
        float most = 0;
#pragma omp simd reduction(max : most)
        for (int64_t d = 0; d < D; d++) {
          stretched[d] = row[d] * stretch[d];
          most = std::max(most, std::abs(stretched[d]));
        }
        most = std::max(most, 1e-30f);
        scale[p * kPanel + l] = most / 127;
        const float unit = 127 / most;
        for (int64_t d = 0; d < D; d++)
          bytes[l * width + d] = static_cast<uint8_t>(static_cast<int32_t>(std::lrintf(stretched[d] * unit)) + 128);
      }
      auto* out = reinterpret_cast<uint32_t*>(panels + p * kPanel * width);
      const auto* in = reinterpret_cast<const uint32_t*>(bytes.data());
      for (int64_t q = 0; q < width / 4; q++)
        for (int64_t l = 0; l < kPanel; l++) out[q * kPanel + l] = in[l * (width / 4) + q];
    }
  }
}

// Tokens, each dimension over stretch, as signed bytes; scale[t] as above, total[t] = Σ bytes.
void saeops_pack_tokens(const float* x, const float* stretch, int64_t T, int64_t D, int8_t* bytes, float* scale,
                        int32_t* total) {
  const int64_t width = int8_width(D);
#pragma omp parallel
  {
    std::vector<float> shrunk(D);
#pragma omp for schedule(static)
    for (int64_t t = 0; t < T; t++) {
      float most = 1e-30f;
#pragma omp simd reduction(max : most)
      for (int64_t d = 0; d < D; d++) {
        shrunk[d] = x[t * D + d] / stretch[d];
        most = std::max(most, std::abs(shrunk[d]));
      }
      scale[t] = most / 127;
      const float unit = 127 / most;
      int32_t sum = 0;
      int8_t* out = bytes + t * width;
      std::fill(out, out + width, 0);
      for (int64_t d = 0; d < D; d++) {
        const auto byte = static_cast<int32_t>(std::lrintf(shrunk[d] * unit));
        out[d] = static_cast<int8_t>(byte);
        sum += byte;
      }
      total[t] = sum;
    }
  }
}



// The C latents of each token with the largest approximate scores, scored again in fp32, and the K largest of
// these in order of latent. `scale` and `bias` have room for whole panels; bias is −infinity past the last latent.
void saeops_shortlist_topk(const float* x, const float* W, const float* b, const int8_t* x_bytes,
                           const float* x_scale, const int32_t* x_total, const uint8_t* panels, const float* scale,
                           const float* bias, int64_t T, int64_t F, int64_t D, int64_t C, int64_t K, int32_t* latent,
                           float* value) {
  const int64_t width = int8_width(D), n_panels = (F + kPanel - 1) / kPanel;
#pragma omp parallel
  {
    std::vector<Shortlist> lists(kBlock);
    std::vector<float> per_unit(kBlock), scratch(Shortlist::kRoom);
    std::vector<int32_t> offset(kBlock);
    // Each thread takes an equal share, and goes through it a block at a time.
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const int64_t last = T * (thread + 1) / threads;
    for (int64_t begin = T * thread / threads; begin < last; begin += kBlock) {
      const int64_t rows = std::min(kBlock, last - begin);
      for (int64_t r = 0; r < rows; r++) {
        lists[r].count = 0;
        lists[r].floor = -INFINITY;
        per_unit[r] = 1 / x_scale[begin + r];
        offset[r] = -128 * x_total[begin + r];
      }
      for (int64_t p = 0; p < n_panels; p++)
        for (int64_t r = 0; r < rows; r += kTile)
          score_rows(std::min(kTile, rows - r), x_bytes + (begin + r) * width, width, panels + p * kPanel * width,
                     scale + p * kPanel, bias + p * kPanel, per_unit.data() + r, offset.data() + r,
                     static_cast<int32_t>(p * kPanel), lists.data() + r, C);
      for (int64_t r = 0; r < rows; r++) {
        Shortlist& list = lists[r];
        list.shrink(C);
        std::sort(list.entries, list.entries + list.count,
                  [](const Scored& a, const Scored& c) { return a.latent < c.latent; });
        const float* token = x + (begin + r) * D;
        for (int64_t j = 0; j < list.count; j++) {
          if (j + 2 < list.count) prefetch_row(W + list.entries[j + 2].latent * D, D);
          list.entries[j].value = dot(token, W + list.entries[j].latent * D, D) + b[list.entries[j].latent];
        }
        int32_t* latents = latent + (begin + r) * K;
        float* values = value + (begin + r) * K;
        if (list.count >= K) {
          keep_largest(list.entries, list.count, K, scratch.data(), latents, values);
        } else {  // only where a token holds NaN: it shows in the loss
          std::fill(latents, latents + K, 0);
          std::fill(values, values + K, NAN);
        }
      }
    }
  }
}

#endif

}  // extern "C"
