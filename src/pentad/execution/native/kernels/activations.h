// Activations of feed-forwards, 16 values at a time.
#pragma once
#include "native.h"
#include "simd.h"

namespace pentad {

// erf to 1.5e-7 (Abramowitz and Stegun 7.1.26).
PENTAD_INLINE f32x16 verf(f32x16 x) {
  const f32x16 a = vabs(x), t = 1.0f / (1.0f + a * 0.3275911f);
  f32x16 p = splat(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const f32x16 y = 1.0f - p * t * vexp(-a * a);
  return (f32x16)((i32x16)y | ((i32x16)x & (int32_t)0x80000000));
}

// tanh to 2e-7 of 1.
PENTAD_INLINE f32x16 vtanh(f32x16 x) { return 1.0f - 2.0f / (vexp(x * 2.0f) + 1.0f); }

constexpr float kClamp = 7.0f;  // where the clamped activation cuts

// The activation of that kind (pentad_activation), of a gate or, where there is none, of the hidden columns.
PENTAD_INLINE f32x16 activate(f32x16 x, int kind) {
  constexpr float kTwice = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  switch (kind) {
    case PENTAD_GELU: return x * 0.5f * (1.0f + verf(x * 0.70710678118654752f));
    case PENTAD_GELU_TANH: return x / (1.0f + vexp(-kTwice * (x + x * x * x * 0.044715f)));
    case PENTAD_RELU: return vmax(x, splat(0.0f));
    case PENTAD_RELU_SQUARED: x = vmax(x, splat(0.0f)); return x * x;
    case PENTAD_CLAMPED: x = vmin(x, splat(kClamp)); return x / (1.0f + vexp(-1.702f * x));
    default: return silu(x);
  }
}

// What the activation of a gate is multiplied by, where `up` is beside it.
PENTAD_INLINE f32x16 gated(f32x16 up, int kind) {
  return kind == PENTAD_CLAMPED ? vmax(vmin(up, splat(kClamp)), splat(-kClamp)) + 1.0f : up;
}

// Rows of `width` values each: values = activation(values + bias) * (up + up_bias). Biases and `up` may be null.
template <int kKind>
void activate_rows(float* values, const float* bias, const float* up, const float* up_bias, int rows, int width) {
  for (int i = 0; i < width; i += 16) {
    const f32x16 shift = bias ? load(bias + i) : splat(0.0f), up_shift = up_bias ? load(up_bias + i) : splat(0.0f);
    float* p = values + i;
    if (!up) {
      for (int r = 0; r < rows; r++, p += width) store(p, activate(load(p) + shift, kKind));
      continue;
    }
    const float* u = up + i;
    for (int r = 0; r < rows; r++, p += width, u += width)
      store(p, activate(load(p) + shift, kKind) * gated(load(u) + up_shift, kKind));
  }
}

// use.operator()<kind>() for the activation.
template <typename Use>
void with_activation(int kind, Use&& use) {
  switch (kind) {
    case PENTAD_GELU: return use.template operator()<PENTAD_GELU>();
    case PENTAD_GELU_TANH: return use.template operator()<PENTAD_GELU_TANH>();
    case PENTAD_RELU: return use.template operator()<PENTAD_RELU>();
    case PENTAD_RELU_SQUARED: return use.template operator()<PENTAD_RELU_SQUARED>();
    case PENTAD_CLAMPED: return use.template operator()<PENTAD_CLAMPED>();
    default: return use.template operator()<PENTAD_SILU>();
  }
}

}  // namespace pentad
