// Vectors of 16 floats: one source for every instruction set. Only int8 and bf16 dot products and tiles
// need intrinsics; they live in dot.h, code_tiles.h and attention_tiles.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace pentad {

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

#if defined(__AVX512F__)

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

// Any of these types from memory, of whatever alignment, and back.
template <typename Vector>
PENTAD_INLINE Vector load_as(const void* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename Vector>
PENTAD_INLINE void store_as(void* p, Vector v) {
  std::memcpy(p, &v, sizeof v);
}
template <typename To, typename From>
PENTAD_INLINE To converted(From v) {
  return __builtin_convertvector(v, To);
}
PENTAD_INLINE f32x16 splat(float x) { return f32x16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
PENTAD_INLINE i32x16 splat_i(int32_t x) { return i32x16{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

#else

#if defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Sixteen elements in as many registers as they need. A vector type wider than a register would do, but
// compilers keep those in memory.
template <typename T>
struct Sixteen {
  static constexpr int kPieces = 16 / kLanes;
  typedef T Piece __attribute__((vector_size(kLanes * sizeof(T))));
  Piece piece[kPieces];

  Sixteen() = default;
  PENTAD_INLINE explicit Sixteen(T x) {
    each<kPieces>([&](auto i) PENTAD_LAMBDA { piece[i] = x - Piece{}; });
  }
  // The same bits as numbers of another type.
  template <typename U>
  PENTAD_INLINE explicit Sixteen(const Sixteen<U>& other) {
    static_assert(sizeof(U) == sizeof(T));
    each<kPieces>([&](auto i) PENTAD_LAMBDA { piece[i] = (Piece)other.piece[i]; });
  }
  PENTAD_INLINE T operator[](int i) const { return piece[i / kLanes][i % kLanes]; }
};

template <typename T, typename Use>
PENTAD_INLINE Sixteen<T> by_pieces(Use&& use) {
  Sixteen<T> out;
  each<Sixteen<T>::kPieces>([&](auto i) PENTAD_LAMBDA { out.piece[i] = use(i); });
  return out;
}
#define PENTAD_OPERATOR(op)                                                                       \
  template <typename T>                                                                           \
  PENTAD_INLINE Sixteen<T> operator op(const Sixteen<T>& a, const Sixteen<T>& b) {                \
    return by_pieces<T>([&](auto i) PENTAD_LAMBDA { return a.piece[i] op b.piece[i]; });          \
  }                                                                                               \
  template <typename T>                                                                           \
  PENTAD_INLINE Sixteen<T> operator op(const Sixteen<T>& a, std::type_identity_t<T> b) {          \
    return by_pieces<T>([&](auto i) PENTAD_LAMBDA { return a.piece[i] op b; });                   \
  }                                                                                               \
  template <typename T>                                                                           \
  PENTAD_INLINE Sixteen<T> operator op(std::type_identity_t<T> a, const Sixteen<T>& b) {          \
    return by_pieces<T>([&](auto i) PENTAD_LAMBDA { return a op b.piece[i]; });                   \
  }
PENTAD_OPERATOR(+)
PENTAD_OPERATOR(-)
PENTAD_OPERATOR(*)
PENTAD_OPERATOR(/)
PENTAD_OPERATOR(&)
PENTAD_OPERATOR(|)
PENTAD_OPERATOR(<<)
PENTAD_OPERATOR(>>)
#undef PENTAD_OPERATOR
template <typename T>
PENTAD_INLINE Sixteen<T> operator-(const Sixteen<T>& a) {
  return by_pieces<T>([&](auto i) PENTAD_LAMBDA { return -a.piece[i]; });
}
template <typename T>
PENTAD_INLINE Sixteen<T>& operator+=(Sixteen<T>& a, const Sixteen<T>& b) {
  return a = a + b;
}
template <typename T>
PENTAD_INLINE Sixteen<T>& operator|=(Sixteen<T>& a, const Sixteen<T>& b) {
  return a = a | b;
}
// All bits set where it holds.
template <typename T>
PENTAD_INLINE Sixteen<int32_t> operator>(const Sixteen<T>& a, const Sixteen<T>& b) {
  return by_pieces<int32_t>([&](auto i) PENTAD_LAMBDA { return a.piece[i] > b.piece[i]; });
}
template <typename T>
PENTAD_INLINE Sixteen<int32_t> operator!=(const Sixteen<T>& a, const Sixteen<T>& b) {
  return by_pieces<int32_t>([&](auto i) PENTAD_LAMBDA { return a.piece[i] != b.piece[i]; });
}

typedef Sixteen<float> f32x16;
typedef Sixteen<int32_t> i32x16;
typedef Sixteen<uint32_t> u32x16;
typedef Sixteen<uint16_t> u16x16;

template <typename Vector>
PENTAD_INLINE Vector load_as(const void* p) {
  Vector v;
  each<Vector::kPieces>([&](auto i) PENTAD_LAMBDA {
    std::memcpy(&v.piece[i], static_cast<const char*>(p) + i * sizeof v.piece[0], sizeof v.piece[0]);
  });
  return v;
}
template <typename Vector>
PENTAD_INLINE void store_as(void* p, Vector v) {
  each<Vector::kPieces>([&](auto i) PENTAD_LAMBDA {
    std::memcpy(static_cast<char*>(p) + i * sizeof v.piece[0], &v.piece[i], sizeof v.piece[0]);
  });
}
template <typename To, typename From>
PENTAD_INLINE To converted(const From& v) {
  To out;
  each<To::kPieces>([&](auto i) PENTAD_LAMBDA {
    out.piece[i] = __builtin_convertvector(v.piece[i], typename To::Piece);
  });
  return out;
}
PENTAD_INLINE f32x16 splat(float x) { return f32x16(x); }
PENTAD_INLINE i32x16 splat_i(int32_t x) { return i32x16(x); }

#endif

PENTAD_INLINE f32x16 load(const float* p) { return load_as<f32x16>(p); }
PENTAD_INLINE void store(float* p, f32x16 v) { store_as(p, v); }
PENTAD_INLINE f32x16 to_float(i32x16 v) { return converted<f32x16>(v); }

PENTAD_INLINE f32x16 vmax(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return by_pieces<float>([&](auto i) PENTAD_LAMBDA { return a.piece[i] > b.piece[i] ? a.piece[i] : b.piece[i]; });
#endif
}
PENTAD_INLINE f32x16 vmin(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_min_ps((__m512)a, (__m512)b);
#else
  return by_pieces<float>([&](auto i) PENTAD_LAMBDA { return a.piece[i] < b.piece[i] ? a.piece[i] : b.piece[i]; });
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

// Every lane takes the value of the one whose number differs in the bit kStep alone.
template <int kStep>
PENTAD_INLINE f32x16 crossed(f32x16 v) {
#if defined(__AVX512F__) && defined(__clang__)
  return [&]<int... i>(std::integer_sequence<int, i...>) PENTAD_LAMBDA {
    return __builtin_shufflevector(v, v, (i ^ kStep)...);
  }(std::make_integer_sequence<int, 16>{});
#elif defined(__AVX512F__)
  return [&]<int... i>(std::integer_sequence<int, i...>) PENTAD_LAMBDA {
    return __builtin_shuffle(v, i32x16{(i ^ kStep)...});
  }(std::make_integer_sequence<int, 16>{});
#else
  if constexpr (kStep >= kLanes) return by_pieces<float>([&](auto i) PENTAD_LAMBDA { return v.piece[i ^ (kStep / kLanes)]; });
  else
    return [&]<int... i>(std::integer_sequence<int, i...>) PENTAD_LAMBDA {
      return by_pieces<float>([&](auto p) PENTAD_LAMBDA {
#if defined(__clang__)
        return __builtin_shufflevector(v.piece[p], v.piece[p], (i ^ kStep)...);
#else
        return __builtin_shuffle(v.piece[p], i32x16::Piece{(i ^ kStep)...});
#endif
      });
    }(std::make_integer_sequence<int, kLanes>{});
#endif
}

PENTAD_INLINE float hsum(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  for (int n = f32x16::kPieces / 2; n; n /= 2)
    for (int i = 0; i < n; i++) v.piece[i] += v.piece[i + n];
  f32x16::Piece sum = v.piece[0];
  for (int step = kLanes / 2; step; step /= 2)
    for (int i = 0; i < step; i++) sum[i] += sum[i + step];
  return sum[0];
#endif
}
PENTAD_INLINE float hmax(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  f32x16::Piece top = v.piece[0];
  for (int i = 1; i < f32x16::kPieces; i++) top = v.piece[i] > top ? v.piece[i] : top;
  float m = top[0];
  for (int i = 1; i < kLanes; i++) m = top[i] > m ? top[i] : m;
  return m;
#endif
}

PENTAD_INLINE void set_lane(f32x16& v, int i, float x) {
#if defined(__AVX512F__)
  v[i] = x;
#else
  v.piece[i / kLanes][i % kLanes] = x;
#endif
}
PENTAD_INLINE int32_t isum(i32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  i32x16::Piece sum = v.piece[0];
  for (int i = 1; i < i32x16::kPieces; i++) sum += v.piece[i];
  uint32_t s = 0;  // Codes of activations that are no numbers may wrap; what is drawn of them is a fault.
  for (int i = 0; i < kLanes; i++) s += static_cast<uint32_t>(sum[i]);
  return static_cast<int32_t>(s);
#endif
}
// Numbers of at most 8 bits, one byte each.
PENTAD_INLINE void store_i8(int8_t* p, i32x16 v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)v));
#else
  store_as(p, converted<Sixteen<int8_t>>(v));
#endif
}
PENTAD_INLINE i32x16 load_i8(const void* p) {
#if defined(__AVX512F__)
  return (i32x16)_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(p));
  i32x16 v;
  v.piece[0] = (i32x16::Piece)_mm256_cvtepi8_epi32(bytes);
  v.piece[1] = (i32x16::Piece)_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8));
  return v;
#elif defined(__SSE2__)
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(p));
  const __m128i low = _mm_unpacklo_epi8(bytes, bytes), high = _mm_unpackhi_epi8(bytes, bytes);
  i32x16 v;
  v.piece[0] = (i32x16::Piece)_mm_srai_epi32(_mm_unpacklo_epi16(low, low), 24);
  v.piece[1] = (i32x16::Piece)_mm_srai_epi32(_mm_unpackhi_epi16(low, low), 24);
  v.piece[2] = (i32x16::Piece)_mm_srai_epi32(_mm_unpacklo_epi16(high, high), 24);
  v.piece[3] = (i32x16::Piece)_mm_srai_epi32(_mm_unpackhi_epi16(high, high), 24);
  return v;
#else
  return converted<i32x16>(load_as<Sixteen<int8_t>>(p));
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
  return (f32x16)(converted<u32x16>(v) << 16);
}
PENTAD_INLINE f32x16 load_bf16(const uint16_t* p) { return bf16_to_float(load_as<u16x16>(p)); }

PENTAD_INLINE float from_bf16(uint16_t x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16); }

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
  const u32x16 u = (u32x16)v;
  return converted<u16x16>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
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
  r.piece[0] = (f32x16::Piece)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  r.piece[1] = (f32x16::Piece)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
  return r;
#elif defined(__aarch64__)
  return by_pieces<float>([&](auto i) PENTAD_LAMBDA {
    return (f32x16::Piece)vcvt_f32_f16(vld1_f16(reinterpret_cast<const __fp16*>(p) + i * kLanes));
  });
#else  // exact for all finite numbers; scales are finite
  const u32x16 bits = converted<u32x16>(load_as<u16x16>(p));
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
