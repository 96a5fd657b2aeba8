// The matrix kernels of 8-bit activations, one set for each layout of packed rows. They are compiled once, in
// group_dots.cpp, and not anew by every op that does something else with what they give.
#pragma once
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

constexpr int kPairTokens = 4;

// A group is 16 rows; what is given has 16 rows a token. All numbers of tokens give the same bits.
struct GroupDots {
  using Tokens = void (*)(const uint8_t* group, const Layout& layout, const Quantized& x, int token, f32x16* out);
  using Pair = void (*)(const uint8_t* group, size_t apart, const Layout& layout, const Quantized& x, int token,
                        const uint8_t*& next, int ahead, f32x16* out);
  using Widen = void (*)(const uint8_t* group, int blocks, uint8_t* out);

  // Of one group, for so many tokens from `token` on.
  Tokens one, two, four, tile;
  // kPairTokens tokens of two groups that lie `apart` bytes from each other: what is loaded of a token serves both,
  // since loads are what a CPU runs out of first. out[t] of the first group, then of the second. With every block,
  // `ahead` lines are fetched from `next` on, which is moved. Null where the instruction set has too few registers.
  Pair pair;
  // A group as one of 8-bit codes, which `pair` then takes. Null where codes are unpacked as fast as they are loaded.
  Widen widen;
  size_t wide_block_bytes;
};

const GroupDots& group_dots(const Layout& layout);

// use.operator()<bits, minima, halves>() for the layout.
template <typename Use>
decltype(auto) with_layout(const Layout& l, Use&& use) {
  if (l.bits == 4 && l.minima) return use.template operator()<4, true, false>();
  if (l.bits == 4) return use.template operator()<4, false, false>();
  if (l.bits == 5 && l.minima) return use.template operator()<5, true, false>();
  if (l.bits == 5) return use.template operator()<5, false, false>();
  if (l.bits == 6) return use.template operator()<6, false, true>();
  return use.template operator()<8, false, false>();
}

}  // namespace pentad
