// The lines of one block on SSE2, which every x86-64 has: codes widened to 16 bits, two products a sum.
#pragma once
#include <emmintrin.h>

#include "pack.h"
#include "simd.h"

namespace pentad {

template <int kBits, int kTokens = 2>
struct Lines {
  static constexpr int kLess = 0;
  const uint8_t* p;
  PENTAD_INLINE explicit Lines(const uint8_t* data) : p(data) {}

  // Codes of rows 4 quarter .. 4 quarter + 3 in line g.
  PENTAD_INLINE __m128i codes(int g, int quarter) const {
    if constexpr (kBits == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + g * 64 + quarter * 16));
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + (g & 3) * 64 + quarter * 16));
    __m128i codes = _mm_and_si128(g < 4 ? both : _mm_srli_epi16(both, 4), _mm_set1_epi8(15));
    for (int bit = 4; bit < kBits; bit++) {
      const __m128i plane = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 256 + (bit - 4) * 64 + quarter * 16));
      const __m128i moved = g < bit ? _mm_sll_epi16(plane, _mm_cvtsi32_si128(bit - g)) : _mm_srl_epi16(plane, _mm_cvtsi32_si128(g - bit));
      codes = _mm_or_si128(codes, _mm_and_si128(moved, _mm_set1_epi8(static_cast<char>(1 << bit))));
    }
    return codes;
  }

  template <int kFrom, int kTo>
  PENTAD_INLINE i32x16 dot(const int8_t* a, int32_t start) const {
    const __m128i zero = _mm_setzero_si128();
    __m128i wide[kTo - kFrom];  // four activations, twice, in 16 bits
    for (int g = kFrom; g < kTo; g++) {
      int32_t four;
      std::memcpy(&four, a + g * 4, 4);
      const __m128i bytes = _mm_set1_epi32(four);
      wide[g - kFrom] = _mm_srai_epi16(_mm_unpacklo_epi8(zero, bytes), 8);
    }
    __m128i out[4];
    for (int quarter = 0; quarter < 4; quarter++) {
      __m128i low = zero, high = zero;  // sums of two products: rows 0 0 1 1 and 2 2 3 3
      for (int g = kFrom; g < kTo; g++) {
        const __m128i c = codes(g, quarter);
        low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi8(c, zero), wide[g - kFrom]));
        high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi8(c, zero), wide[g - kFrom]));
      }
      const __m128 x = _mm_castsi128_ps(low), y = _mm_castsi128_ps(high);
      const __m128i even = _mm_castps_si128(_mm_shuffle_ps(x, y, _MM_SHUFFLE(2, 0, 2, 0)));
      const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(x, y, _MM_SHUFFLE(3, 1, 3, 1)));
      out[quarter] = _mm_add_epi32(_mm_add_epi32(even, odd), _mm_set1_epi32(start));
    }
    i32x16 v;
    for (int quarter = 0; quarter < 4; quarter++) v.piece[quarter] = (i32x16::Piece)out[quarter];
    return v;
  }
};
constexpr int kTokenTile = 4;

}  // namespace pentad
