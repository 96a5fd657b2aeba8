// Attention over paged keys and values in bf16.
//
// A block holds 16 tokens of one key/value head:
//   keys   [D / 2][16 tokens][2 dims]   -- a line of 32 is one bf16 dot product with a query pair
//   values [8][D][2 tokens]             -- likewise with a pair of probabilities
// so that scores and sums are dot products without any shuffle, and a block is an AMX tile.
#pragma once
#include <bit>

#include "simd.h"

namespace pentad {

constexpr int kPage = 16;  // tokens of a KV block

PENTAD_INLINE uint32_t pair_bf16(float a, float b) {
  return static_cast<uint32_t>(to_bf16(a)) | static_cast<uint32_t>(to_bf16(b)) << 16;
}

// acc + x.low * y.low + x.high * y.high over 16 pairs; y is one pair for all.
PENTAD_INLINE f32x16 dot_pairs(f32x16 acc, const uint16_t* x, uint32_t y) {
#if defined(__AVX512BF16__)
  return (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_set1_epi32((int)y));
#else
  i32x16 v = *reinterpret_cast<const i32x16u*>(x);
  uint32_t lo = y << 16, hi = y & 0xffff0000u;
  float a, b;
  std::memcpy(&a, &lo, 4);
  std::memcpy(&b, &hi, 4);
  return acc + (f32x16)(v << 16) * a + (f32x16)(v & splat_i((int32_t)0xffff0000)) * b;
#endif
}

inline void write_key(uint16_t* block, int dim, int offset, const float* k) {
  for (int d = 0; d < dim; d += 16, block += 8 * kPage * 2) {
    const u16x16 halves = to_bf16(load(k + d));
    uint32_t pairs[8];
    std::memcpy(pairs, &halves, sizeof pairs);
    for (int j = 0; j < 8; j++) std::memcpy(block + (j * kPage + offset) * 2, pairs + j, 4);
  }
}
inline void write_value(uint16_t* block, int dim, int offset, const float* v) {
  uint16_t* line = block + (offset / 2) * dim * 2 + offset % 2;
  for (int d = 0; d < dim; d += 16, line += 32) {
    const u16x16 halves = to_bf16(load(v + d));
    uint16_t values[16];
    std::memcpy(values, &halves, sizeof values);
    for (int i = 0; i < 16; i++) line[i * 2] = values[i];
  }
}

// One query row: its vector as bf16 pairs, and the slots [first, limit) it attends to.
struct Row {
  const uint32_t* query;  // [D / 2]
  int first;
  int limit;
  float* out;             // [D]
};

// Where the blocks of one sequence and head lie.
struct Pages {
  const int32_t* table;
  const uint16_t* base;   // of this layer and head
  size_t stride;          // elements between blocks
  int dim;
  int tail_from = INT32_MAX;        // blocks from here on lie at `tail`, one behind the other
  const uint16_t* tail = nullptr;
  const uint16_t* keys(int block) const {
    if (block >= tail_from) return tail + static_cast<size_t>(block - tail_from) * dim * kPage * 2;
    return base + stride * static_cast<size_t>(table[block]);
  }
  const uint16_t* values(int block) const { return keys(block) + static_cast<size_t>(dim) * kPage; }
};

constexpr int kAheadBlocks = 4;

// The first blocks of keys that will be read behind the present ones.
struct Upcoming {
  const uint16_t* keys[kAheadBlocks] = {};
  int count = 0;
  const uint16_t* block(int i, const uint16_t* otherwise) const { return i < count ? keys[i] : otherwise; }
};

constexpr int kTailBlocks = 5;  // a begun block and a path of 64 tokens behind it

inline void copy_slot(const uint16_t* from, int offset, uint16_t* to, int place, int dim) {
  for (int j = 0; j < dim / 2; j++) std::memcpy(to + (j * kPage + place) * 2, from + (j * kPage + offset) * 2, 4);
  const uint16_t* values = from + dim * kPage + (offset / 2) * dim * 2 + offset % 2;
  uint16_t* line = to + dim * kPage + (place / 2) * dim * 2 + place % 2;
  for (int d = 0; d < dim; d++) line[d * 2] = values[d * 2];
}

// The pages as a token of a tree sees them: the slots in front of the tree, at `first`, then those of
// `path` (bit i: slot first + i) without gaps. They are copied to `tail`, [kTailBlocks][keys, values],
// so that the arithmetic, and with it the result, is that of the same text without a tree.
inline Pages along_path(const Pages& pages, int first, uint64_t path, uint16_t* tail) {
  Pages seen = pages;
  seen.tail_from = first / kPage;
  seen.tail = tail;
  const size_t elements = static_cast<size_t>(pages.dim) * kPage * 2;
  if (first % kPage) std::memcpy(tail, pages.keys(first / kPage), elements * 2);
  int place = first % kPage;
  for (; path; path &= path - 1, place++) {
    const int slot = first + std::countr_zero(path);
    copy_slot(pages.keys(slot / kPage), slot % kPage, tail + elements * static_cast<size_t>(place / kPage),
              place % kPage, pages.dim);
  }
  return seen;
}

// The blocks of a sequence lie anywhere, so no hardware foresees them: each is fetched while those in
// front of it are computed. Keys are followed by the first values.
template <int kN, int kWide>
PENTAD_INLINE void score_blocks(const Row* rows, const Pages& pages, int block, int begin, int end, float scale,
                                float* scores, int stride) {
  f32x16 acc[kN][kWide];
  const uint16_t *k[kWide], *next[kWide];
  for (int w = 0; w < kWide; w++) {
    k[w] = pages.keys(block + w);
    const int ahead = block + kWide + w;
    next[w] = ahead < end ? pages.keys(ahead) : pages.values(begin + (ahead - end) % (end - begin));
  }
  for (int n = 0; n < kN; n++)
    for (int w = 0; w < kWide; w++) acc[n][w] = splat(0.0f);
  for (int j = 0; j < pages.dim / 2; j++)
    for (int w = 0; w < kWide; w++) {
      __builtin_prefetch(next[w] + j * 32, 0, 2);
      for (int n = 0; n < kN; n++) acc[n][w] = dot_pairs(acc[n][w], k[w] + j * 32, rows[n].query[j]);
    }
  for (int n = 0; n < kN; n++)
    for (int w = 0; w < kWide; w++) store(scores + static_cast<size_t>(n) * stride + (block + w) * kPage, acc[n][w] * scale);
}

// kN rows that read the same pages. `scores` holds kN rows of `stride` floats (a multiple of 16).
// `after` is what will be read next: its first keys are fetched behind the last values.
template <int kN>
void attend(const Row* rows, const Pages& pages, float scale, float* scores, int stride, const Upcoming& after) {
  int first = rows[0].first, limit = rows[0].limit;
  for (int n = 1; n < kN; n++) {
    first = rows[n].first < first ? rows[n].first : first;
    limit = rows[n].limit > limit ? rows[n].limit : limit;
  }
  const int begin = first / kPage, end = (limit + kPage - 1) / kPage;
  constexpr int kWide = kN >= 4 ? 2 : 4;
  int block = begin;
  for (; block + kWide <= end; block += kWide) score_blocks<kN, kWide>(rows, pages, block, begin, end, scale, scores, stride);
  for (; block < end; block++) score_blocks<kN, 1>(rows, pages, block, begin, end, scale, scores, stride);

  float inverse[kN];
  for (int n = 0; n < kN; n++) {
    float* s = scores + static_cast<size_t>(n) * stride;
    for (int i = begin * kPage; i < rows[n].first; i++) s[i] = -INFINITY;
    for (int i = rows[n].limit; i < end * kPage; i++) s[i] = -INFINITY;
    f32x16 top = splat(-INFINITY);
    for (int i = begin * kPage; i < end * kPage; i += 16) top = vmax(top, load(s + i));
    const float m = hmax(top);
    f32x16 sum = splat(0.0f);
    for (int i = begin * kPage; i < end * kPage; i += 16) {
      f32x16 x = load(s + i);
      f32x16 e = vexp(x - m);
      i32x16 live = x > splat(-3.0e38f);
      e = (f32x16)((i32x16)e & live);
      sum += e;
      // In place: two bytes a probability from here on, never ahead of what is still to be read.
      *reinterpret_cast<u16x16u*>(reinterpret_cast<uint16_t*>(s) + i) = to_bf16(e);
    }
    inverse[n] = 1.0f / hsum(sum);
  }

  for (int d = 0; d < pages.dim; d += 64) {
    const int lanes = pages.dim - d < 64 ? (pages.dim - d) / 16 : 4;
    f32x16 acc[kN][4];
    for (int n = 0; n < kN; n++)
      for (int l = 0; l < 4; l++) acc[n][l] = splat(0.0f);
    for (int b = begin; b < end; b++) {
      const uint16_t* v = pages.values(b) + d * 2;
      const int ahead = b + kAheadBlocks;
      const uint16_t* next = (ahead < end ? pages.values(ahead) : after.block(ahead - end, v - d * 2)) + d * 2;
      for (int pair = 0; pair < kPage / 2; pair++, v += pages.dim * 2, next += pages.dim * 2) {
        for (int l = 0; l < lanes; l++) __builtin_prefetch(next + l * 32, 0, 2);
        uint32_t p[kN];
        for (int n = 0; n < kN; n++) {
          const uint16_t* s = reinterpret_cast<const uint16_t*>(scores + static_cast<size_t>(n) * stride);
          std::memcpy(&p[n], s + b * kPage + pair * 2, 4);
        }
        if (lanes == 4) {
          for (int l = 0; l < 4; l++)
            for (int n = 0; n < kN; n++) acc[n][l] = dot_pairs(acc[n][l], v + l * 32, p[n]);
        } else {
          for (int l = 0; l < lanes; l++)
            for (int n = 0; n < kN; n++) acc[n][l] = dot_pairs(acc[n][l], v + l * 32, p[n]);
        }
      }
    }
    for (int n = 0; n < kN; n++)
      for (int l = 0; l < lanes; l++) store(rows[n].out + d + l * 16, acc[n][l] * inverse[n]);
  }
}

inline void attend_rows(const Row* rows, int count, const Pages& pages, float scale, float* scores, int stride,
                        const Upcoming& after) {
  while (count >= 4) attend<4>(rows, pages, scale, scores, stride, after), rows += 4, count -= 4;
  if (count == 3) attend<3>(rows, pages, scale, scores, stride, after);
  else if (count == 2) attend<2>(rows, pages, scale, scores, stride, after);
  else if (count == 1) attend<1>(rows, pages, scale, scores, stride, after);
}

}  // namespace pentad
