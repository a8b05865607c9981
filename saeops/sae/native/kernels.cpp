// Kernels of one training step on a CPU, behind a plain C interface that ctypes calls.
//
// All matrices are row-major fp32 with one latent (or token) a row; all indices are int32. Every output
// row is made by one thread in a fixed order, so results do not depend on the number of threads.
// What each must compute stands in saeops/sae/{select,sparse}.py and saeops/training/adam.py, in plain torch.
//
// T token, R row, D width, F latent, N entry, K kept a row

#include "rows.h"

namespace {

constexpr int64_t kGrain = 16;  // rows a thread takes at a time, where rows differ in cost

// Which of 64 values lie above t, as bits.
inline uint64_t above64(const float* p, float t) {
#if defined(__AVX512F__)
  const __m512 level = _mm512_set1_ps(t);
  const uint64_t a = _mm512_cmp_ps_mask(_mm512_loadu_ps(p), level, _CMP_GT_OQ);
  const uint64_t b = _mm512_cmp_ps_mask(_mm512_loadu_ps(p + 16), level, _CMP_GT_OQ);
  const uint64_t c = _mm512_cmp_ps_mask(_mm512_loadu_ps(p + 32), level, _CMP_GT_OQ);
  const uint64_t d = _mm512_cmp_ps_mask(_mm512_loadu_ps(p + 48), level, _CMP_GT_OQ);
  return a | b << 16 | c << 32 | d << 48;
#else
  uint64_t bits = 0;
  for (int j = 0; j < 64; j++) bits |= static_cast<uint64_t>(p[j] > t) << j;
  return bits;
#endif
}

inline uint64_t above64(const float* p, const float* floor) {
#if defined(__AVX512F__)
  uint64_t bits = 0;
  for (int j = 0; j < 4; j++) {
    const __m512 level = _mm512_loadu_ps(floor + 16 * j);
    bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(_mm512_loadu_ps(p + 16 * j), level, _CMP_GT_OQ)) << 16 * j;
  }
  return bits;
#else
  uint64_t bits = 0;
  for (int j = 0; j < 64; j++) bits |= static_cast<uint64_t>(p[j] > floor[j]) << j;
  return bits;
#endif
}

// All values above t, in order of latent.
inline int64_t gather_above(const float* p, int64_t F, float t, Scored* into) {
  int64_t count = 0, f = 0;
  for (; f + 64 <= F; f += 64) {
    for (uint64_t bits = above64(p + f, t); bits; bits &= bits - 1) {
      const int64_t at = f + __builtin_ctzll(bits);
      into[count++] = {p[at], static_cast<int32_t>(at)};
    }
  }
  for (; f < F; f++)
    if (p[f] > t) into[count++] = {p[f], static_cast<int32_t>(f)};
  return count;
}

// sum += Σ weight_j · row_j, four rows at a time so that the sum is loaded and stored once for four.
template <typename Row, typename Weight>
inline void add_rows(float* __restrict sum, int64_t D, int64_t begin, int64_t end, Row row, Weight weight) {
  int64_t j = begin;
  for (; j + 4 <= end; j += 4) {
    for (int64_t ahead = j + 4; ahead < std::min(j + 8, end); ahead++) prefetch_row(row(ahead), D);
    const float *a = row(j), *b = row(j + 1), *c = row(j + 2), *e = row(j + 3);
    const float u = weight(j), v = weight(j + 1), w = weight(j + 2), z = weight(j + 3);
#pragma omp simd
    for (int64_t d = 0; d < D; d++) sum[d] += u * a[d] + v * b[d] + (w * c[d] + z * e[d]);
  }
  for (; j < end; j++) {
    const float* a = row(j);
    const float u = weight(j);
#pragma omp simd
    for (int64_t d = 0; d < D; d++) sum[d] += u * a[d];
  }
}

}  // namespace

extern "C" {

// The K largest of each row, in order of latent.
void saeops_topk(const float* pre, int64_t T, int64_t F, int64_t K, int32_t* latent, float* value) {
#pragma omp parallel
  {
    std::vector<Scored> found(F);
    std::vector<float> scratch(F);
    // Most rows' K-th value is near the last ones': values far below need not be looked at. Only a guess:
    // where it leaves too few, the whole row is taken.
    float usual = NAN;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < T; t++) {
      const float guess = usual > 0 ? 0.75f * usual : -INFINITY;
      int64_t count = gather_above(pre + t * F, F, guess, found.data());
      if (count < K) {
        count = F;
        for (int64_t f = 0; f < F; f++) found[f] = {pre[t * F + f], static_cast<int32_t>(f)};
      }
      const float smallest = keep_largest(found.data(), count, K, scratch.data(), latent + t * K, value + t * K);
      usual = std::isnan(usual) ? smallest : 0.9f * usual + 0.1f * smallest;
    }
  }
}

// How many values of each row lie above their latent's floor.
void saeops_count_above(const float* pre, int64_t T, int64_t F, const float* floor, int32_t* count) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    const float* p = pre + t * F;
    int64_t found = 0, f = 0;
    for (; f + 64 <= F; f += 64) found += __builtin_popcountll(above64(p + f, floor + f));
    for (; f < F; f++) found += p[f] > floor[f];
    count[t] = static_cast<int32_t>(found);
  }
}

// These values, row t's from offsets[t] on, in order of latent.
void saeops_fill_above(const float* pre, int64_t T, int64_t F, const float* floor, const int32_t* offsets,
                       int32_t* latent, float* value) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; t++) {
    const float* p = pre + t * F;
    int64_t at = offsets[t], f = 0;
    for (; f + 64 <= F; f += 64)
      for (uint64_t bits = above64(p + f, floor + f); bits; bits &= bits - 1) {
        const int64_t found = f + __builtin_ctzll(bits);
        latent[at] = static_cast<int32_t>(found);
        value[at++] = p[found];
      }
    for (; f < F; f++)
      if (p[f] > floor[f]) {
        latent[at] = static_cast<int32_t>(f);
        value[at++] = p[f];
      }
  }
}

// Entries in order of latent, within a latent in order of entry.
void saeops_by_latent(const int32_t* latent, int64_t N, int64_t F, int32_t* offsets, int32_t* order) {
  std::fill(offsets, offsets + F + 1, 0);
  for (int64_t n = 0; n < N; n++) offsets[latent[n] + 1]++;
  for (int64_t f = 0; f < F; f++) offsets[f + 1] += offsets[f];
  std::vector<int32_t> next(offsets, offsets + F);
  for (int64_t n = 0; n < N; n++) order[next[latent[n]]++] = static_cast<int32_t>(n);
}

// out[r] = Σ over the row's entries of weight · rows[latent].
void saeops_sum_by_row(const int32_t* offsets, const int32_t* latent, const float* weight, const float* rows,
                       int64_t R, int64_t D, float* out) {
#pragma omp parallel for schedule(dynamic, kGrain)
  for (int64_t r = 0; r < R; r++) {
    std::fill(out + r * D, out + (r + 1) * D, 0.f);
    add_rows(
        out + r * D, D, offsets[r], offsets[r + 1], [&](int64_t n) { return rows + latent[n] * D; },
        [&](int64_t n) { return weight[n]; });
  }
}

// out[f] = Σ over the latent's entries of weight · rows[row]; total[f] = Σ weight.
void saeops_sum_by_latent(const int32_t* offsets, const int32_t* order, const int32_t* row, const float* weight,
                          const float* rows, int64_t F, int64_t D, float* out, float* total) {
#pragma omp parallel for schedule(dynamic, kGrain)
  for (int64_t f = 0; f < F; f++) {
    std::fill(out + f * D, out + (f + 1) * D, 0.f);
    add_rows(
        out + f * D, D, offsets[f], offsets[f + 1], [&](int64_t j) { return rows + row[order[j]] * D; },
        [&](int64_t j) { return weight[order[j]]; });
    float sum = 0;
    for (int64_t j = offsets[f]; j < offsets[f + 1]; j++) sum += weight[order[j]];
    total[f] = sum;
  }
}

// out[n] = rows_R[row of n] · rows_F[latent of n].
void saeops_dot(const int32_t* offsets, const int32_t* latent, const float* rows_R, const float* rows_F, int64_t R,
                int64_t D, float* out) {
#pragma omp parallel for schedule(dynamic, kGrain)
  for (int64_t r = 0; r < R; r++)
    for (int64_t n = offsets[r]; n < offsets[r + 1]; n++) {
      if (n + 2 < offsets[r + 1]) prefetch_row(rows_F + latent[n + 2] * D, D);
      out[n] = dot(rows_R + r * D, rows_F + latent[n] * D, D);
    }
}

// residual = y − Σ value · W[latent] − b; along[n] = residual of its row · W[latent of n]; error[r] = ‖residual‖².
// One pass: a row's decoder rows are still in the cache when they are read again.
void saeops_reconstruct(const int32_t* offsets, const int32_t* latent, const float* value, const float* W,
                        const float* b, const float* y, int64_t R, int64_t D, float* residual, float* along,
                        float* error) {
#pragma omp parallel for schedule(dynamic, kGrain)
  for (int64_t r = 0; r < R; r++) {
    float* res = residual + r * D;
    const float* target = y + r * D;
#pragma omp simd
    for (int64_t d = 0; d < D; d++) res[d] = target[d] - b[d];
    add_rows(
        res, D, offsets[r], offsets[r + 1], [&](int64_t n) { return W + latent[n] * D; },
        [&](int64_t n) { return -value[n]; });
    error[r] = dot(res, res, D);
    for (int64_t n = offsets[r]; n < offsets[r + 1]; n++) along[n] = dot(res, W + latent[n] * D, D);
  }
}

// Σ over rows of ‖g‖², or of ‖g − (g·w) w‖² where rows w of unit norm are given; one number a row.
void saeops_squared_norms(const float* g, const float* w, int64_t F, int64_t D, float* squared) {
#pragma omp parallel for schedule(static)
  for (int64_t f = 0; f < F; f++) {
    const float* row = g + f * D;
    const float whole = dot(row, row, D);
    const float along = w ? dot(row, w + f * D, D) : 0;
    squared[f] = std::max(0.f, whole - along * along);
  }
}

// Adam on F rows, in one pass: clip by `scale`, off with the part along a unit row, step, back to unit length.
void saeops_adam(float* w, const float* g, float* first, float* second, int64_t F, int64_t D, float lr, float beta1,
                 float beta2, float eps, int64_t step, float scale, int32_t unit) {
  const float step_size = lr / (1 - std::pow(static_cast<double>(beta1), static_cast<double>(step)));
  const float root = 1 / std::sqrt(1 - std::pow(static_cast<double>(beta2), static_cast<double>(step)));
#pragma omp parallel for schedule(static)
  for (int64_t f = 0; f < F; f++) {
    float *row = w + f * D, *m = first + f * D, *v = second + f * D;
    const float* gradient = g + f * D;
    const float along = unit ? dot(gradient, row, D) : 0;
    float squared = 0;
#pragma omp simd reduction(+ : squared)
    for (int64_t d = 0; d < D; d++) {
      const float clipped = scale * (gradient[d] - along * row[d]);
      m[d] = beta1 * m[d] + (1 - beta1) * clipped;
      v[d] = beta2 * v[d] + (1 - beta2) * clipped * clipped;
      row[d] -= step_size * m[d] / (std::sqrt(v[d]) * root + eps);
      squared += row[d] * row[d];
    }
    if (unit) {
      const float length = 1 / std::sqrt(squared);
#pragma omp simd
      for (int64_t d = 0; d < D; d++) row[d] *= length;
    }
  }
}

}  // extern "C"
