// What the kernels share: scored latents, dot products, the largest of a list.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

struct Scored {
  float value;
  int32_t latent;
};

inline void prefetch_row(const float* row, int64_t D) {
  for (int64_t d = 0; d < D; d += 16) __builtin_prefetch(row + d, 0, 3);
}

inline float dot(const float* a, const float* b, int64_t D) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; d++) sum += a[d] * b[d];
  return sum;
}

// What a row holding NaN gives: NaN, for the loss to show, and latents that exist.
inline void give_nan(int64_t K, int32_t* latent, float* value) {
  for (int64_t j = 0; j < K; j++) latent[j] = static_cast<int32_t>(j);
  std::fill(value, value + K, NAN);
}

// The K largest of at least K entries, in their order; gives the smallest of them, NaN where an entry is NaN.
inline float keep_largest(const Scored* from, int64_t count, int64_t K, float* scratch, int32_t* latent, float* value) {
  bool orderly = true;
  for (int64_t j = 0; j < count; j++) {
    scratch[j] = from[j].value;
    orderly &= !std::isnan(from[j].value);
  }
  if (!orderly) {
    give_nan(K, latent, value);
    return NAN;
  }
  std::nth_element(scratch, scratch + K - 1, scratch + count, std::greater<float>());
  const float smallest = scratch[K - 1];
  // Of equal values at the border as many as fit, from the first latent on.
  int64_t larger_ones = 0;
  for (int64_t j = 0; j < count; j++) larger_ones += from[j].value > smallest;
  int64_t equal_left = K - larger_ones, kept = 0;
  for (int64_t j = 0; j < count && kept < K; j++) {
    const bool at_border = from[j].value == smallest;
    if (from[j].value > smallest || (at_border && equal_left > 0)) {
      equal_left -= at_border;
      latent[kept] = from[j].latent;
      value[kept++] = from[j].value;
    }
  }
  return smallest;
}
