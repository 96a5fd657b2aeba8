// Int8 activations, and their dot products with a block of packed weights: what every matrix kernel is made of.
#pragma once
#include "pack.h"
#include "simd.h"
#if defined(__SSE2__) && !defined(__AVX2__)
#include "dot_sse2.h"
#endif

namespace pentad {

// Activations of T tokens, quantized per 32 columns: x ~ scale * code, codes in -127 .. 127.
struct Quantized {
  int cols = 0;
  int panel = 1;             // tokens whose numbers of a block lie side by side: 1, or those of a tile
  int8_t* codes = nullptr;   // [T / panel][cols / 32][panel][32]
  float* scale = nullptr;    // [T / panel][cols / 32][panel]
  float* total = nullptr;    // likewise: scale times the sum of the codes, for minima
  int32_t* sum = nullptr;    // [T][cols / 16] sums of codes per half block, for offsets
};

// Quantizes `count` blocks of one row, from block `first` on; x points to the first of them.
inline void quantize(const float* x, const Quantized& q, int token, int first, int count) {
  const size_t blocks = static_cast<size_t>(q.cols / kBlock), panel = static_cast<size_t>(q.panel);
  size_t at = (static_cast<size_t>(token) / panel * blocks + first) * panel + static_cast<size_t>(token) % panel;
  int32_t* sum = q.sum + (static_cast<size_t>(token) * blocks + first) * 2;
  for (int b = 0; b < count; b++, at += panel) {
    f32x16 lo = load(x + b * kBlock), hi = load(x + b * kBlock + 16);
    float top = hmax(vmax(vabs(lo), vabs(hi)));
    float s = top / 127.0f, inverse = top > 0 ? 127.0f / top : 0.0f;
    i32x16 a = round_int(lo * inverse), c = round_int(hi * inverse);
    store_i8(q.codes + at * kBlock, a);
    store_i8(q.codes + at * kBlock + 16, c);
    q.scale[at] = s;
    const int32_t sa = isum(a), sc = isum(c);
    sum[2 * b] = sa;
    sum[2 * b + 1] = sc;
    q.total[at] = s * static_cast<float>(sa + sc);
  }
}

PENTAD_INLINE int32_t four(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

// The lines of one block, unpacked to one unsigned byte a code, and their dot products with so many tokens.
#if defined(__AVX512VNNI__)

template <int kBits, int kTokens = 2>
struct Lines {
  static constexpr int kLess = 0;  // what dot() takes off every code by itself
  __m512i line[8];
  PENTAD_INLINE explicit Lines(const uint8_t* p) {
    if constexpr (kBits == 8) {
      for (int g = 0; g < 8; g++) line[g] = _mm512_loadu_si512(p + g * 64);
    } else {
      const __m512i low = _mm512_set1_epi8(15);
      for (int g = 0; g < 4; g++) {
        __m512i both = _mm512_loadu_si512(p + g * 64);
        line[g] = _mm512_and_si512(both, low);
        line[g + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
      }
      if constexpr (kBits > 4) add_bit<4>(_mm512_loadu_si512(p + 256));
      if constexpr (kBits > 5) add_bit<5>(_mm512_loadu_si512(p + 320));
    }
  }
  // Bit g of `plane` is bit kBit of the codes in line g.
  template <int kBit>
  PENTAD_INLINE void add_bit(__m512i plane) {
    const __m512i mask = _mm512_set1_epi8(1 << kBit);
    each<8>([&](auto g) PENTAD_LAMBDA {
      const __m512i bit = g < kBit ? _mm512_slli_epi16(plane, g < kBit ? kBit - g : 0)
                                   : _mm512_srli_epi16(plane, g < kBit ? 0 : g - kBit);
      line[g] = _mm512_ternarylogic_epi32(line[g], bit, mask, 0xf8);  // line | (bit & mask)
    });
  }
  // Sum over columns 4 from .. 4 to of the block, plus `start`.
  template <int kFrom, int kTo>
  PENTAD_INLINE i32x16 dot(const int8_t* a, int32_t start) const {
    __m512i acc = _mm512_set1_epi32(start);
    for (int g = kFrom; g < kTo; g++) acc = _mm512_dpbusd_epi32(acc, line[g], _mm512_set1_epi32(four(a + g * 4)));
    return (i32x16)acc;
  }
};
constexpr int kTokenTile = 8;

#elif defined(__AVX2__)

template <int kBits, int kTokens = 2>
struct Lines {
#if defined(__AVXVNNI__)
  static constexpr int kLess = 0;
#else
  // Codes of 8 bits are taken less 128: the size of each times the activation with its sign, since 255 * 127 twice
  // would not fit 16 bits. Sizes are made once for all tokens.
  static constexpr int kLess = kBits == 8 ? 128 : 0;
#endif
  static constexpr bool kSizes = kLess != 0 && kTokens > 1;
  __m256i line[8][2], size[kSizes ? 8 : 1][2];
  PENTAD_INLINE explicit Lines(const uint8_t* p) {
    for (int h = 0; h < 2; h++) {
      if constexpr (kBits == 8) {
        for (int g = 0; g < 8; g++) {
          line[g][h] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + g * 64 + h * 32));
          if constexpr (kLess != 0) line[g][h] = _mm256_xor_si256(line[g][h], _mm256_set1_epi8(static_cast<char>(128)));
          if constexpr (kSizes) size[g][h] = _mm256_abs_epi8(line[g][h]);
        }
      } else {
        const __m256i low = _mm256_set1_epi8(15);
        for (int g = 0; g < 4; g++) {
          __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + g * 64 + h * 32));
          line[g][h] = _mm256_and_si256(both, low);
          line[g + 4][h] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
        if constexpr (kBits > 4) add_bit<4>(h, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 256 + h * 32)));
        if constexpr (kBits > 5) add_bit<5>(h, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 320 + h * 32)));
      }
    }
  }
  // Bit g of `plane` is bit kBit of the codes in line g.
  template <int kBit>
  PENTAD_INLINE void add_bit(int h, __m256i plane) {
    const __m256i mask = _mm256_set1_epi8(1 << kBit);
    each<8>([&](auto g) PENTAD_LAMBDA {
      const __m256i bit = g < kBit ? _mm256_slli_epi16(plane, g < kBit ? kBit - g : 0)
                                   : _mm256_srli_epi16(plane, g < kBit ? 0 : g - kBit);
      line[g][h] = _mm256_or_si256(line[g][h], _mm256_and_si256(bit, mask));
    });
  }
  template <int kFrom, int kTo>
  PENTAD_INLINE i32x16 dot(const int8_t* a, int32_t start) const {
    __m256i acc[2];
    for (int h = 0; h < 2; h++) {
#if defined(__AVXVNNI__)
      acc[h] = _mm256_set1_epi32(start);
      for (int g = kFrom; g < kTo; g++)
        acc[h] = _mm256_dpbusd_avx_epi32(acc[h], line[g][h], _mm256_set1_epi32(four(a + g * 4)));
#else
      const __m256i ones = _mm256_set1_epi16(1);
      if constexpr (kBits < 8) {
        // So many sums of two products fit 16 bits: widen only then.
        constexpr int kFit = 32767 / (((1 << kBits) - 1) * 127 * 2);
        acc[h] = _mm256_set1_epi32(start);
        for (int from = kFrom; from < kTo; from += kFit) {
          __m256i narrow = _mm256_setzero_si256();
          for (int g = from; g < kTo && g < from + kFit; g++)
            narrow = _mm256_add_epi16(narrow, _mm256_maddubs_epi16(line[g][h], _mm256_set1_epi32(four(a + g * 4))));
          acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(narrow, ones));
        }
      } else {
        acc[h] = _mm256_set1_epi32(start);
        for (int g = kFrom; g < kTo; g++) {
          const __m256i signed_a = _mm256_sign_epi8(_mm256_set1_epi32(four(a + g * 4)), line[g][h]);
          const __m256i sizes = kSizes ? size[kSizes ? g : 0][h] : _mm256_abs_epi8(line[g][h]);
          acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(_mm256_maddubs_epi16(sizes, signed_a), ones));
        }
      }
#endif
    }
    i32x16 r;
    for (int h = 0; h < 2; h++) r.piece[h] = (i32x16::Piece)acc[h];
    return r;
  }
};
constexpr int kTokenTile = 8;

#elif defined(__ARM_FEATURE_DOTPROD)

template <int kBits, int kTokens = 2>
struct Lines {
  static constexpr int kLess = kBits == 8 ? 128 : 0;
  int8x16_t line[8][4];
  PENTAD_INLINE explicit Lines(const uint8_t* p) {
    for (int q = 0; q < 4; q++, p += 16) {
      if constexpr (kBits == 8) {
        for (int g = 0; g < 8; g++) line[g][q] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + g * 64), vdupq_n_u8(128)));
      } else {
        for (int g = 0; g < 4; g++) {
          const uint8x16_t both = vld1q_u8(p + g * 64);
          line[g][q] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
          line[g + 4][q] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
        }
        if constexpr (kBits > 4) add_bit<4>(q, vld1q_u8(p + 256));
        if constexpr (kBits > 5) add_bit<5>(q, vld1q_u8(p + 320));
      }
    }
  }
  // Bit g of `plane` is bit kBit of the codes in line g.
  template <int kBit>
  PENTAD_INLINE void add_bit(int q, uint8x16_t plane) {
    each<8>([&](auto g) PENTAD_LAMBDA {
      uint8x16_t bit = plane;
      if constexpr (g < kBit) bit = vshlq_n_u8(plane, kBit - g);
      if constexpr (g > kBit) bit = vshrq_n_u8(plane, g - kBit);
      line[g][q] = vorrq_s8(line[g][q], vreinterpretq_s8_u8(vandq_u8(bit, vdupq_n_u8(1 << kBit))));
    });
  }
  template <int kFrom, int kTo>
  PENTAD_INLINE i32x16 dot(const int8_t* a, int32_t start) const {
    int8x16_t x[kTo - kFrom];
    for (int g = kFrom; g < kTo; g++) x[g - kFrom] = vreinterpretq_s8_s32(vdupq_n_s32(four(a + g * 4)));
    i32x16 r;
    for (int q = 0; q < 4; q++) {
      int32x4_t acc = vdupq_n_s32(start);
      for (int g = kFrom; g < kTo; g++) acc = vdotq_s32(acc, line[g][q], x[g - kFrom]);
      r.piece[q] = (i32x16::Piece)acc;
    }
    return r;
  }
};
constexpr int kTokenTile = 4;

#elif !defined(__SSE2__)

template <int kBits, int kTokens = 2>
struct Lines {
  static constexpr int kLess = 0;
  const uint8_t* p;
  PENTAD_INLINE explicit Lines(const uint8_t* data) : p(data) {}
  template <int kFrom, int kTo>
  PENTAD_INLINE i32x16 dot(const int8_t* a, int32_t start) const {
    int32_t acc[kRows];
    for (int r = 0; r < kRows; r++) acc[r] = start;
    for (int g = kFrom; g < kTo; g++)
      for (int r = 0; r < kRows; r++)
        for (int c = 0; c < 4; c++) acc[r] += code_at(p, kBits, g, r * 4 + c) * a[g * 4 + c];
    return load_as<i32x16>(acc);
  }
};
constexpr int kTokenTile = 4;

#endif

}  // namespace pentad
