// Vectors of 16 floats through compiler vector types: one source for every instruction set.
// Only int8 and bf16 dot products and tiles need intrinsics; they live in dot.h, code_tiles.h
// and attention_tiles.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace pentad {

typedef float f32x16 __attribute__((vector_size(64)));
typedef float f32x16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef uint16_t u16x16u __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef int8_t i8x16u __attribute__((vector_size(16), aligned(1), may_alias));

#define PENTAD_INLINE inline __attribute__((always_inline))
#define PENTAD_LAMBDA __attribute__((always_inline))

// Memory that begins with a cache line, as tiles want it.
template <typename T>
struct CacheLines {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kLine); }
  bool operator==(const CacheLines&) const = default;
};
template <typename T>
using Aligned = std::vector<T, CacheLines<T>>;

// use(0) ... use(kCount - 1) with constant numbers, so that arrays of vectors stay in registers.
template <int kCount, typename Use>
PENTAD_INLINE void each(Use&& use) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) PENTAD_LAMBDA {
    (use(std::integral_constant<int, kIndex>{}), ...);
  }(std::make_integer_sequence<int, kCount>{});
}

PENTAD_INLINE f32x16 load(const float* p) { return *reinterpret_cast<const f32x16u*>(p); }
PENTAD_INLINE void store(float* p, f32x16 v) { *reinterpret_cast<f32x16u*>(p) = v; }
PENTAD_INLINE f32x16 splat(float x) { return f32x16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
PENTAD_INLINE i32x16 splat_i(int32_t x) { return i32x16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
PENTAD_INLINE f32x16 to_float(i32x16 v) { return __builtin_convertvector(v, f32x16); }

PENTAD_INLINE f32x16 vmax(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}
PENTAD_INLINE f32x16 vmin(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_min_ps((__m512)a, (__m512)b);
#else
  return a < b ? a : b;
#endif
}
// a * b + c, rounded once where the instruction set can.
PENTAD_INLINE f32x16 muladd(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return a * b + c;
#endif
}
PENTAD_INLINE f32x16 vabs(f32x16 a) { return (f32x16)((i32x16)a & 0x7fffffff); }

PENTAD_INLINE float hsum(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float s = 0;
  for (int step = 8; step; step >>= 1)
    for (int i = 0; i < step; i++) v[i] += v[i + step];
  s = v[0];
  return s;
#endif
}
PENTAD_INLINE float hmax(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float m = v[0];
  for (int i = 1; i < 16; i++) m = v[i] > m ? v[i] : m;
  return m;
#endif
}

// Rounds to nearest even; inputs must lie well inside the int32 range.
PENTAD_INLINE i32x16 round_int(f32x16 v) {
#if defined(__AVX512F__)
  return (i32x16)_mm512_cvtps_epi32((__m512)v);
#else
  const f32x16 magic = splat(12582912.0f);  // 1.5 * 2^23
  return (i32x16)(v + magic) - (i32x16)magic;
#endif
}

PENTAD_INLINE f32x16 bf16_to_float(u16x16 v) {
  typedef uint32_t u32x16 __attribute__((vector_size(64)));
  return (f32x16)(__builtin_convertvector(v, u32x16) << 16);
}
PENTAD_INLINE f32x16 load_bf16(const uint16_t* p) { return bf16_to_float(*reinterpret_cast<const u16x16u*>(p)); }

// Round to nearest even; NaN does not occur in our data.
PENTAD_INLINE uint16_t to_bf16(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
PENTAD_INLINE u16x16 to_bf16(f32x16 v) {
#if defined(__AVX512BF16__)
  return (u16x16)_mm512_cvtneps_pbh((__m512)v);
#else
  typedef uint32_t u32x16 __attribute__((vector_size(64)));
  u32x16 u = (u32x16)v;
  u = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return __builtin_convertvector(u, u16x16);
#endif
}

inline float half_to_float_scalar(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 1023u, u;
  if (exp == 0) {
    if (man == 0) {
      u = sign;
    } else {
      int shift = 0;
      while (!(man & 1024u)) man <<= 1, shift++;
      u = sign | ((uint32_t)(113 - shift) << 23) | ((man & 1023u) << 13);
    }
  } else if (exp == 31) {
    u = sign | 0x7f800000u | (man << 13);
  } else {
    u = sign | ((exp + 112u) << 23) | (man << 13);
  }
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
PENTAD_INLINE f32x16 load_half(const uint16_t* p) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  f32x16 r;
  __m256 lo = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  __m256 hi = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
  std::memcpy(&r, &lo, 32);
  std::memcpy(reinterpret_cast<char*>(&r) + 32, &hi, 32);
  return r;
#else  // exact for all finite numbers; scales are finite
  typedef uint32_t u32x16 __attribute__((vector_size(64)));
  const u32x16 bits = __builtin_convertvector(*reinterpret_cast<const u16x16u*>(p), u32x16);
  const f32x16 magnitude = (f32x16)((bits & 0x7fffu) << 13) * 0x1p112f;
  return (f32x16)((u32x16)magnitude | (bits & 0x8000u) << 16);
#endif
}
inline uint16_t float_to_half(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  uint32_t sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  if (u >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (u < 0x38800000u) {  // subnormal half
    if (u < 0x33000000u) return static_cast<uint16_t>(sign);
    float scaled;
    std::memcpy(&scaled, &u, 4);
    uint32_t man = static_cast<uint32_t>(std::nearbyintf(scaled * 16777216.0f));
    return static_cast<uint16_t>(sign | man);
  }
  uint32_t rounded = u + 0xfffu + ((u >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// e^x for x <= ~88, relative error below 2e-7 (Cody-Waite reduction, degree-6 polynomial).
PENTAD_INLINE f32x16 vexp(f32x16 x) {
  x = vmax(x, splat(-87.0f));
  x = vmin(x, splat(88.0f));
  i32x16 n = round_int(x * 1.44269504088896341f);
  f32x16 fn = to_float(n);
  f32x16 r = x - fn * 0.693359375f;
  r = r + fn * 2.12194440e-4f;
  f32x16 p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (f32x16)((n + 127) << 23);
}

PENTAD_INLINE f32x16 silu(f32x16 x) { return x / (1.0f + vexp(-x)); }

}  // namespace pentad
