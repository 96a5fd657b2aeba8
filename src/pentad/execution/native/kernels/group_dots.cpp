#include "group_dots.h"

#include <algorithm>

namespace pentad {

namespace {

// How near weights are fetched. On Zen 5 "used once" keeps them from driving activations, keys and the caller's own data
// out of the caches: 5% at batch 1. On tiles, where this has not been measured, they go to the second cache.
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
constexpr int kNear = 0;
#else
constexpr int kNear = 2;
#endif

template <int kBits, bool kMinima, bool kHalves, int kTokens>
void dot_tokens(const uint8_t* p, const Layout& layout, const Quantized& x, int token, f32x16* out) {
  const int blocks = x.cols / kBlock;
  constexpr int code_bytes = kRows * kBlock * kBits / 8;
  constexpr int block_bytes = code_bytes + 32 * (1 + kHalves + kMinima);
  const int32_t minus = Lines<kBits>::kLess - layout.offset;
  const int8_t* codes = x.codes + static_cast<size_t>(token) * x.cols;
  const float* scale = x.scale + static_cast<size_t>(token) * blocks;
  const float* total = x.total + static_cast<size_t>(token) * blocks;
  const int32_t* sum = x.sum + static_cast<size_t>(token) * blocks * 2;
  f32x16 acc[kTokens];
  for (int t = 0; t < kTokens; t++) acc[t] = splat(0.0f);
  for (int b = 0; b < blocks; b++, p += block_bytes) {
    for (int i = 0; i < block_bytes; i += 64) __builtin_prefetch(p + kAhead + i, 0, kNear);
    const Lines<kBits, kTokens> lines(p);
    const uint16_t* tail = reinterpret_cast<const uint16_t*>(p + code_bytes);
    const f32x16 ws = load_half(tail);
    for (int t = 0; t < kTokens; t++) {
      const int8_t* a = codes + static_cast<size_t>(t) * x.cols + b * kBlock;
      const int32_t* s = sum + (static_cast<size_t>(t) * blocks + b) * 2;
      const float as = scale[static_cast<size_t>(t) * blocks + b];
      if constexpr (kHalves) {
        const i32x16 lo = lines.template dot<0, 4>(a, minus * s[0]), hi = lines.template dot<4, 8>(a, minus * s[1]);
        acc[t] = add_halves(acc[t], lo, ws, hi, load_half(tail + kRows), as);
      } else {
        const int32_t start = kMinima ? 0 : minus * (s[0] + s[1]);
        acc[t] = add_block(acc[t], lines.template dot<0, 8>(a, start), ws, as);
      }
      if constexpr (kMinima)
        acc[t] = muladd(load_half(tail + kRows * (1 + kHalves)), splat(total[static_cast<size_t>(t) * blocks + b]), acc[t]);
    }
  }
  for (int t = 0; t < kTokens; t++) out[t] = acc[t];
}

#if defined(__AVX512VNNI__)

template <int kBits, bool kMinima, bool kHalves>
void dot_pair(const uint8_t* p, size_t apart, const Layout& layout, const Quantized& x, int token, const uint8_t*& fetched,
              int ahead, f32x16* out) {
  const size_t blocks = static_cast<size_t>(x.cols / kBlock), cols = static_cast<size_t>(x.cols);
  constexpr int code_bytes = kRows * kBlock * kBits / 8, parts = 1 + kHalves;
  const int8_t* codes = x.codes + static_cast<size_t>(token) * cols;
  const float* scale = x.scale + static_cast<size_t>(token) * blocks;
  const float* total = x.total + static_cast<size_t>(token) * blocks;
  const int32_t* sum = x.sum + static_cast<size_t>(token) * blocks * 2;
  const uint8_t* next = fetched;
  f32x16 acc[2][kPairTokens];
  for (auto& group : acc) std::fill(group, group + kPairTokens, splat(0.0f));
  for (size_t b = 0; b < blocks; b++, p += code_bytes + 32 * (parts + kMinima)) {
    for (int i = 0; i < ahead; i++, next += 64) __builtin_prefetch(next, 0, 2);
    const Lines<kBits> lines[2] = {Lines<kBits>(p), Lines<kBits>(p + apart)};
    __m512i dots[parts][2][kPairTokens];
    for (size_t t = 0; t < kPairTokens; t++) {
      const int32_t* s = sum + (t * blocks + b) * 2;
      for (int h = 0; h < parts; h++)
        dots[h][0][t] = dots[h][1][t] =
            _mm512_set1_epi32(kMinima ? 0 : -layout.offset * (kHalves ? s[h] : s[0] + s[1]));
    }
    each<8>([&](auto g) PENTAD_LAMBDA {
      each<kPairTokens>([&](auto t) PENTAD_LAMBDA {
        constexpr int h = kHalves ? g / 4 : 0;
        const __m512i a = _mm512_set1_epi32(four(codes + t * cols + b * kBlock + g * 4));
        for (int i = 0; i < 2; i++) dots[h][i][t] = _mm512_dpbusd_epi32(dots[h][i][t], lines[i].line[g], a);
      });
    });
    for (int i = 0; i < 2; i++) {
      const uint16_t* tail = reinterpret_cast<const uint16_t*>(p + apart * static_cast<size_t>(i) + code_bytes);
      const f32x16 ws = load_half(tail);
      for (size_t t = 0; t < kPairTokens; t++) {
        const float as = scale[t * blocks + b];
        if constexpr (kHalves)
          acc[i][t] = add_halves(acc[i][t], (i32x16)dots[0][i][t], ws, (i32x16)dots[1][i][t], load_half(tail + kRows), as);
        else
          acc[i][t] = add_block(acc[i][t], (i32x16)dots[0][i][t], ws, as);
        if constexpr (kMinima)
          acc[i][t] = muladd(load_half(tail + kRows * parts), splat(total[t * blocks + b]), acc[i][t]);
      }
    }
  }
  fetched = next;
  for (int i = 0; i < 2; i++) std::copy(acc[i], acc[i] + kPairTokens, out + i * kPairTokens);
}

template <int kBits, bool kMinima, bool kHalves>
void widen_codes(const uint8_t* p, int blocks, uint8_t* out) {
  constexpr int code_bytes = kRows * kBlock * kBits / 8, tail = 32 * (1 + kHalves + kMinima);
  for (int b = 0; b < blocks; b++, p += code_bytes + tail) {
    const Lines<kBits> lines(p);
    for (int g = 0; g < 8; g++, out += 64) _mm512_storeu_si512(out, lines.line[g]);
    std::memcpy(out, p + code_bytes, tail);
    out += tail;
  }
}

#endif

template <int kBits, bool kMinima, bool kHalves>
constexpr GroupDots dots_of() {
  GroupDots dots{dot_tokens<kBits, kMinima, kHalves, 1>, dot_tokens<kBits, kMinima, kHalves, 2>,
                 dot_tokens<kBits, kMinima, kHalves, 4>, dot_tokens<kBits, kMinima, kHalves, kTokenTile>,
                 nullptr, nullptr, kRows * kBlock + 32 * (1 + kHalves + kMinima)};
#if defined(__AVX512VNNI__)
  constexpr bool kWiden = kBits == 5 || kBits == 6;  // codes of 4 bits are unpacked as fast as they are loaded
  dots.pair = dot_pair<kWiden ? 8 : kBits, kMinima, kHalves>;
  if constexpr (kWiden) dots.widen = widen_codes<kBits, kMinima, kHalves>;
#endif
  return dots;
}

}  // namespace

const GroupDots& group_dots(const Layout& layout) {
  return with_layout(layout, []<int kBits, bool kMinima, bool kHalves>() -> const GroupDots& {
    static constexpr GroupDots dots = dots_of<kBits, kMinima, kHalves>();
    return dots;
  });
}

}  // namespace pentad
