// Packed weights times int8 activations: the products of decode and small batches.
#pragma once
#include "group_dots.h"

namespace pentad {

// Bytes in which two groups of so many columns can be widened.
inline size_t pair_bytes(int cols) { return 2 * static_cast<size_t>(cols / kBlock) * (kRows * kBlock + 96); }

// Tokens from which pairs pay: fewer wait for memory more than for loads.
constexpr int kPairsFrom = 16;

// One group and the tokens from `t` on.
template <typename Epilogue>
PENTAD_INLINE void rest_dot(const GroupDots& dots, const Matrix& m, const Quantized& x, int tokens, int group, int t,
                            Epilogue&& epilogue) {
  const uint8_t* p = m.data + m.group_bytes() * static_cast<size_t>(group);
  f32x16 out[kTokenTile];
  const auto take = [&](GroupDots::Tokens some, int count) PENTAD_LAMBDA {
    some(p, m.layout, x, t, out);
    for (int i = 0; i < count; i++) epilogue(group, t + i, out[i]);
    t += count;
  };
  while (t + kTokenTile <= tokens) take(dots.tile, kTokenTile);
  if (kTokenTile > 4 && t + 4 <= tokens) take(dots.four, 4);
  if (kTokenTile > 2 && t + 2 <= tokens) take(dots.two, 2);
  if (t < tokens) take(dots.one, 1);
}

// The groups from `group` on, two at a time; the first that is left. `room`: see pair_bytes, or null.
template <typename Epilogue>
int pairs_dot(const GroupDots& dots, const Matrix& m, const Quantized& x, int tokens, int group, int end, uint8_t* room,
              Epilogue&& epilogue) {
  if (!dots.pair || (dots.widen && !room)) return group;
  const int blocks = m.cols / kBlock;
  for (; group + 1 < end; group += 2) {
    const uint8_t* p = m.data + m.group_bytes() * static_cast<size_t>(group);
    size_t apart = m.group_bytes();
    if (dots.widen) {
      const size_t wide = static_cast<size_t>(blocks) * dots.wide_block_bytes;
      for (size_t i = 0; i < 2; i++) dots.widen(p + i * apart, blocks, room + i * wide);
      p = room, apart = wide;
    }
    // The next pair is fetched while this one's passes compute.
    const uint8_t* next = m.data + m.group_bytes() * static_cast<size_t>(group + 2);
    const int ahead = static_cast<int>(m.group_bytes() / 32) / (tokens / kPairTokens * blocks) + 1;
    int t = 0;
    for (; t + kPairTokens <= tokens; t += kPairTokens) {
      f32x16 out[2 * kPairTokens];
      dots.pair(p, apart, m.layout, x, t, next, ahead, out);
      for (int i = 0; i < 2 * kPairTokens; i++) epilogue(group + i / kPairTokens, t + i % kPairTokens, out[i]);
    }
    for (int i = 0; i < 2; i++) rest_dot(dots, m, x, tokens, group + i, t, epilogue);
  }
  return group;
}

// Calls epilogue(group, token, 16 values) for every group in [begin, end) and every token. x has panels of 1. In
// `room`, if there is any, groups are widened for many tokens.
template <typename Epilogue>
void multiply(const Matrix& m, const Quantized& x, int tokens, int begin, int end, uint8_t* room, Epilogue&& epilogue) {
  const GroupDots& dots = group_dots(m.layout);
  if (tokens >= kPairsFrom) begin = pairs_dot(dots, m, x, tokens, begin, end, room, epilogue);
  for (int group = begin; group < end; group++) rest_dot(dots, m, x, tokens, group, 0, epilogue);
}

}  // namespace pentad
