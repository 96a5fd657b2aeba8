// Packed weights times int8 activations: the matrix kernels of decode and small batches.
#pragma once
#include <algorithm>

#include "dot.h"

namespace pentad {

// A block's dot products, scaled and added. Every kernel goes through these, so all round alike.
PENTAD_INLINE f32x16 add_block(f32x16 acc, i32x16 dot, f32x16 weight_scale, float scale) {
  return muladd(to_float(dot), weight_scale * scale, acc);
}
PENTAD_INLINE f32x16 add_halves(f32x16 acc, i32x16 lo, f32x16 lo_scale, i32x16 hi, f32x16 hi_scale, float scale) {
  return muladd(muladd(to_float(lo), lo_scale, to_float(hi) * hi_scale), splat(scale), acc);
}

// How far ahead of their use weights are fetched: far enough for memory, not so far that they are
// gone again. Doubles the rate of small batches, which read every weight once.
constexpr int kAhead = 8192;
// How near they are fetched. On Zen 5 "used once" keeps them from driving activations, keys and the caller's own data
// out of the caches: 5% at batch 1. On tiles, where this has not been measured, they go to the second cache.
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
constexpr int kNear = 0;
#else
constexpr int kNear = 2;
#endif

// out[t] (16 rows each) of one group for kTokens tokens from `token` on.
template <int kBits, bool kMinima, bool kHalves, int kTokens>
PENTAD_INLINE void group_dot(const uint8_t* p, const Layout& layout, const Quantized& x, int token, f32x16* out) {
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
    const Lines<kBits> lines(p);
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
constexpr int kPairTokens = 4;

// The same of two groups that lie `apart` bytes from each other: what is loaded of a token serves both, since loads
// are what a CPU runs out of first. out[t] of the first group, then of the second. With every block, `ahead` lines are
// fetched from `next` on, which is moved.
template <int kBits, bool kMinima, bool kHalves>
PENTAD_INLINE void pair_dot(const uint8_t* p, size_t apart, const Layout& layout, const Quantized& x, int token,
                            const uint8_t*& next, int ahead, f32x16* out) {
  const size_t blocks = static_cast<size_t>(x.cols / kBlock), cols = static_cast<size_t>(x.cols);
  constexpr int code_bytes = kRows * kBlock * kBits / 8, parts = 1 + kHalves;
  const int8_t* codes = x.codes + static_cast<size_t>(token) * cols;
  const float* scale = x.scale + static_cast<size_t>(token) * blocks;
  const float* total = x.total + static_cast<size_t>(token) * blocks;
  const int32_t* sum = x.sum + static_cast<size_t>(token) * blocks * 2;
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
  for (int i = 0; i < 2; i++) std::copy(acc[i], acc[i] + kPairTokens, out + i * kPairTokens);
}

// A group as one of 8-bit codes, which many tokens then read without unpacking it again.
template <int kBits, bool kMinima, bool kHalves>
void widen(const uint8_t* p, int blocks, uint8_t* out) {
  constexpr int code_bytes = kRows * kBlock * kBits / 8, tail = 32 * (1 + kHalves + kMinima);
  for (int b = 0; b < blocks; b++, p += code_bytes + tail) {
    const Lines<kBits> lines(p);
    for (int g = 0; g < 8; g++, out += 64) _mm512_storeu_si512(out, lines.line[g]);
    std::memcpy(out, p + code_bytes, tail);
    out += tail;
  }
}
#endif

// Bytes in which two groups of so many columns can be widened.
inline size_t pair_bytes(int cols) { return 2 * static_cast<size_t>(cols / kBlock) * (kRows * kBlock + 96); }

// Tokens from which pairs pay: fewer wait for memory more than for loads.
constexpr int kPairsFrom = 16;

// One group and the tokens from `t` on.
template <int kBits, bool kMinima, bool kHalves, typename Epilogue>
PENTAD_INLINE void rest_dot(const Matrix& m, const Quantized& x, int tokens, int group, int t, Epilogue&& epilogue) {
  const uint8_t* p = m.data + m.group_bytes() * static_cast<size_t>(group);
  f32x16 out[kTokenTile];
  for (; t + kTokenTile <= tokens; t += kTokenTile) {
    group_dot<kBits, kMinima, kHalves, kTokenTile>(p, m.layout, x, t, out);
    for (int i = 0; i < kTokenTile; i++) epilogue(group, t + i, out[i]);
  }
  for (; kTokenTile > 4 && t + 4 <= tokens; t += 4) {
    group_dot<kBits, kMinima, kHalves, 4>(p, m.layout, x, t, out);
    for (int i = 0; i < 4; i++) epilogue(group, t + i, out[i]);
  }
  for (; kTokenTile > 2 && t + 2 <= tokens; t += 2) {
    group_dot<kBits, kMinima, kHalves, 2>(p, m.layout, x, t, out);
    for (int i = 0; i < 2; i++) epilogue(group, t + i, out[i]);
  }
  for (; t < tokens; t++) {
    group_dot<kBits, kMinima, kHalves, 1>(p, m.layout, x, t, out);
    epilogue(group, t, out[0]);
  }
}

// The groups from `group` on, two at a time; the first that is left. `room`: see pair_bytes, or null. A function of
// its own: in line it costs the loops of small batches their registers.
template <int kBits, bool kMinima, bool kHalves, typename Epilogue>
__attribute__((noinline)) int pairs_dot([[maybe_unused]] const Matrix& m, [[maybe_unused]] const Quantized& x,
                                        [[maybe_unused]] int tokens, int group, [[maybe_unused]] int end,
                                        [[maybe_unused]] uint8_t* room, [[maybe_unused]] Epilogue&& epilogue) {
#if defined(__AVX512VNNI__)
  constexpr bool kWiden = kBits == 5 || kBits == 6;  // codes of 4 bits are unpacked as fast as they are loaded
  if (kWiden && !room) return group;
  for (; group + 1 < end; group += 2) {
    const uint8_t* p = m.data + m.group_bytes() * static_cast<size_t>(group);
    size_t apart = m.group_bytes();
    if constexpr (kWiden) {
      const int blocks = m.cols / kBlock;
      const size_t wide = static_cast<size_t>(blocks) * (kRows * kBlock + 32 * (1 + kHalves + kMinima));
      for (size_t i = 0; i < 2; i++) widen<kBits, kMinima, kHalves>(p + i * apart, blocks, room + i * wide);
      p = room, apart = wide;
    }
    // The next pair is fetched while this one's passes compute.
    const uint8_t* next = m.data + m.group_bytes() * static_cast<size_t>(group + 2);
    const int ahead = static_cast<int>(m.group_bytes() / 32) / (tokens / kPairTokens * (m.cols / kBlock)) + 1;
    int t = 0;
    for (; t + kPairTokens <= tokens; t += kPairTokens) {
      f32x16 out[2 * kPairTokens];
      pair_dot<kWiden ? 8 : kBits, kMinima, kHalves>(p, apart, m.layout, x, t, next, ahead, out);
      for (int i = 0; i < 2 * kPairTokens; i++) epilogue(group + i / kPairTokens, t + i % kPairTokens, out[i]);
    }
    for (int i = 0; i < 2; i++) rest_dot<kBits, kMinima, kHalves>(m, x, tokens, group + i, t, epilogue);
  }
#endif
  return group;
}

template <int kBits, bool kMinima, bool kHalves, typename Epilogue>
void groups_dot(const Matrix& m, const Quantized& x, int tokens, int begin, int end, uint8_t* room, Epilogue&& epilogue) {
  if (tokens >= kPairsFrom) begin = pairs_dot<kBits, kMinima, kHalves>(m, x, tokens, begin, end, room, epilogue);
  for (int group = begin; group < end; group++) rest_dot<kBits, kMinima, kHalves>(m, x, tokens, group, 0, epilogue);
}

// use.operator()<bits, minima, halves>() for the layout.
template <typename Use>
void with_layout(const Layout& l, Use&& use) {
  if (l.bits == 4 && l.minima) use.template operator()<4, true, false>();
  else if (l.bits == 4) use.template operator()<4, false, false>();
  else if (l.bits == 5 && l.minima) use.template operator()<5, true, false>();
  else if (l.bits == 5) use.template operator()<5, false, false>();
  else if (l.bits == 6) use.template operator()<6, false, true>();
  else use.template operator()<8, false, false>();
}

// Calls epilogue(group, token, 16 values) for every group in [begin, end) and every token. x has panels of 1. In
// `room`, if there is any, groups are widened for many tokens.
template <typename Epilogue>
void multiply(const Matrix& m, const Quantized& x, int tokens, int begin, int end, uint8_t* room, Epilogue&& epilogue) {
  with_layout(m.layout, [&]<int kBits, bool kMinima, bool kHalves>() {
    groups_dot<kBits, kMinima, kHalves>(m, x, tokens, begin, end, room, epilogue);
  });
}

}  // namespace pentad
