// Norms of rows.
#pragma once
#include <cmath>
#include <vector>

#include "simd.h"
#include "weights.h"

namespace pentad {

// 1 / sqrt(mean of the squares + eps).
inline float rms_factor(float squares, int size, float eps) { return 1.0f / std::sqrt(squares / static_cast<float>(size) + eps); }

inline float sum_of_squares(int size, const float* x, float mean = 0.0f) {
  f32x16 squares = splat(0.0f);
  for (int i = 0; i < size; i += 16) squares += (load(x + i) - mean) * (load(x + i) - mean);
  return hsum(squares);
}

// x * factor * scale; `out` may be the row itself.
inline void scale_row(int size, float factor, const float* x, const float* scale, float* out) {
  for (int i = 0; i < size; i += 16) store(out + i, load(x + i) * factor * load(scale + i));
}

// RMS norm of a row; `out` may be the row itself.
inline void rms_row(int size, float eps, const float* x, const float* scale, float* out) {
  scale_row(size, rms_factor(sum_of_squares(size, x), size, eps), x, scale, out);
}

// Layer norm of a row, without a shift where that is null; `out` may be the row itself.
inline void layer_row(int size, float eps, const float* x, const float* scale, const float* shift, float* out) {
  f32x16 sum = splat(0.0f);
  for (int i = 0; i < size; i += 16) sum += load(x + i);
  const float mean = hsum(sum) / static_cast<float>(size);
  const float factor = rms_factor(sum_of_squares(size, x, mean), size, eps);
  for (int i = 0; i < size; i += 16) {
    const f32x16 y = (load(x + i) - mean) * factor * load(scale + i);
    store(out + i, shift ? y + load(shift + i) : y);
  }
}

}  // namespace pentad
