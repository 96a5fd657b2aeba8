// Dot products of attention: few query rows with blocks of keys, and their weights with blocks of values.
#pragma once
#include <cmath>

#include "pages.h"

namespace pentad {

// A vector of queries as bf16 pairs.
inline void write_query(uint32_t* pairs, const float* x, int dim) {
  for (int d = 0; d < dim; d += 16) store_as(pairs + d / 2, to_bf16(load(x + d)));
}

// acc + x.low * y.low + x.high * y.high over 16 pairs; y is one pair for all.
PENTAD_INLINE f32x16 dot_pairs(f32x16 acc, const uint16_t* x, uint32_t y) {
#if defined(__AVX512BF16__)
  return (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_set1_epi32((int)y));
#else
  const i32x16 v = load_as<i32x16>(x);
  uint32_t lo = y << 16, hi = y & 0xffff0000u;
  float a, b;
  std::memcpy(&a, &lo, 4);
  std::memcpy(&b, &hi, 4);
  return acc + (f32x16)(v << 16) * a + (f32x16)(v & splat_i((int32_t)0xffff0000)) * b;
#endif
}

// How products become scores.
struct Scoring {
  float scale;
  float cap = 0.0f;  // 0: none
};

// One query row: its vector as bf16 pairs, and the slots [first, limit) it attends to.
struct Row {
  const uint32_t* query;  // [D / 2]
  int first;
  int limit;
  float* out;             // [D]
  bool counted = true;    // in tallies, where they are kept
  float slope = 0.0f;     // taken from scores for every slot of distance
  float sink = -INFINITY;  // a score that takes weight and gives nothing
  float* mass = nullptr;   // takes the logarithm of the sum of e^score, unless null

  bool bent(const Scoring& scoring) const { return scoring.cap != 0.0f || slope != 0.0f; }
};

constexpr int kRowsTogether = 8;  // that are attended to at once where there are no tiles
constexpr int kMostPairs = kMostDim / 2;  // of a head
// Sums that kN rows keep at once: as many as leave registers for what they are made of.
#if defined(__AVX512F__)
template <int kN>
constexpr int kBlocksAtOnce = kN == 8 ? 3 : kN == 4 ? 2 : 4;
template <int kN>
constexpr int kSlicesAtOnce = 4;
constexpr bool kTurned = true;  // whether kRowsTogether rows are scored at once
#else
template <int kN>
constexpr int kBlocksAtOnce = kN == 1 ? kLanes / 2 : kN == 2 ? kLanes / 4 : 1;
template <int kN>
constexpr int kSlicesAtOnce = kN <= 2 && kLanes == 8 ? 2 : 1;
constexpr bool kTurned = false;
#endif
// The blocks of a sequence lie anywhere, so no hardware foresees them: what stands kAheadBlocks further in
// `keys` is fetched while those in front of it are computed. Pages of codes are fetched as they are unpacked.
template <int kN, int kWide, bool kFetch, typename Query>
PENTAD_INLINE void score_blocks(Query&& query, const uint16_t* const* keys, int dim, float scale, float* scores,
                                int stride) {
  f32x16 acc[kN][kWide];
  const uint16_t *k[kWide], *next[kWide];
  for (int w = 0; w < kWide; w++) k[w] = keys[w], next[w] = kFetch ? keys[kAheadBlocks + w] : nullptr;
  for (int n = 0; n < kN; n++)
    for (int w = 0; w < kWide; w++) acc[n][w] = splat(0.0f);
  for (int j = 0; j < dim / 2; j++) {
    if constexpr (kFetch)
      for (int w = 0; w < kWide; w++) __builtin_prefetch(next[w] + j * 32, 0, 2);
    // One pair of a query at a time, so that registers are left for the sums.
    for (int n = 0; n < kN; n++) {
      const uint32_t pair = query(n, j);
      for (int w = 0; w < kWide; w++) acc[n][w] = dot_pairs(acc[n][w], k[w] + j * 32, pair);
    }
  }
  for (int n = 0; n < kN; n++)
    for (int w = 0; w < kWide; w++) store(scores + static_cast<size_t>(n) * stride + w * kPage, acc[n][w] * scale);
}

// The pairs of queries as `query` gives them: query(row, number of the pair).
inline auto queries_of(const Row* rows) {
  return [rows](int n, int j) PENTAD_LAMBDA { return rows[n].query[j]; };
}

// Scores of kN rows with `count` blocks; `scores` points to the first of them.
template <int kN, bool kFetch, typename Query>
inline void score(Query&& query, const uint16_t* const* keys, int count, int dim, float scale, float* scores,
                  int stride) {
  constexpr int kWide = kBlocksAtOnce<kN>;
  int b = 0;
  for (; b + kWide <= count; b += kWide)
    score_blocks<kN, kWide, kFetch>(query, keys + b, dim, scale, scores + b * kPage, stride);
  for (; b < count; b++) score_blocks<kN, 1, kFetch>(query, keys + b, dim, scale, scores + b * kPage, stride);
}

// Adds the values of `count` blocks, from `block` on, to kSlices * 16 sums, from number `d` on, of kN rows. How many is
// a constant, so that they stay in registers.
template <int kN, int kSlices, bool kFetch>
PENTAD_INLINE void sum_slices(const Row* rows, const uint16_t* const* values, int count, int block, int dim, int d,
                              bool first, const float* scores, int stride) {
  f32x16 acc[kN][kSlices];
  const uint16_t* weights[kN];
  for (int n = 0; n < kN; n++) {
    weights[n] = reinterpret_cast<const uint16_t*>(scores + static_cast<size_t>(n) * stride) + block * kPage;
    for (int l = 0; l < kSlices; l++) acc[n][l] = first ? splat(0.0f) : load(rows[n].out + d + l * 16);
  }
  for (int b = 0; b < count; b++) {
    const uint16_t *v = values[b] + d * 2, *next = values[kFetch ? b + kAheadBlocks : b] + d * 2;
    for (int pair = 0; pair < kPage / 2; pair++, v += dim * 2, next += dim * 2) {
      if constexpr (kFetch)
        for (int l = 0; l < kSlices; l++) __builtin_prefetch(next + l * 32, 0, 2);
      for (int n = 0; n < kN; n++) {
        uint32_t p;
        std::memcpy(&p, weights[n] + b * kPage + pair * 2, 4);
        for (int l = 0; l < kSlices; l++) acc[n][l] = dot_pairs(acc[n][l], v + l * 32, p);
      }
    }
  }
  for (int n = 0; n < kN; n++)
    for (int l = 0; l < kSlices; l++) store(rows[n].out + d + l * 16, acc[n][l]);
}

// The same to all sums of the rows.
template <int kN, bool kFetch>
inline void sum_values(const Row* rows, const uint16_t* const* values, int count, int block, int dim, bool first,
                       const float* scores, int stride) {
  constexpr int kSlices = kSlicesAtOnce<kN>;
  int d = 0;
  for (; d + kSlices * 16 <= dim; d += kSlices * 16)
    sum_slices<kN, kSlices, kFetch>(rows, values, count, block, dim, d, first, scores, stride);
  if (kSlices > 2 && d < dim) sum_slices<kN, 2, kFetch>(rows, values, count, block, dim, d, first, scores, stride);
}

}  // namespace pentad
