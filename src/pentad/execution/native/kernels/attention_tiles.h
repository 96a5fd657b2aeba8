// Attention of 16 query tokens at a time on AMX tiles: scores, softmax and sums per 256 slots,
// with a running maximum (FlashAttention), so nothing grows with the context.
#pragma once
#include "attention.h"
#include "code_tiles.h"

#if PENTAD_TILES
namespace pentad {

constexpr int kQueries = 16;
constexpr int kSpan = 256;  // slots per pass

struct TileScratch {
  alignas(64) float scores[kQueries * kSpan];
  alignas(64) uint16_t weights[kQueries * kSpan];
  alignas(64) uint16_t query[kQueries * 256];
  alignas(64) float sums[kQueries * 256];
  alignas(64) float lacking[kQueries * kPage];
};

// Scores of the queries in `s` with the slots of `blocks` blocks from slot `from` on; -infinity where query i sees
// none: it sees [max(0, limit + i - window), limit + i).
inline void score_span(const Pages& pages, int count, int from, int blocks, int limit, int window, TileScratch& s) {
  const int dim = pages.dim;
  for (int b = 0; b < blocks; b += 2) {
    const uint16_t* k0 = pages.keys(from / kPage + b);
    const uint16_t* k1 = b + 1 < blocks ? pages.keys(from / kPage + b + 1) : k0;
    _tile_zero(0);
    _tile_zero(1);
    for (int d = 0; d < dim; d += 32) {
      _tile_loadd(4, s.query + d, dim * 2);
      _tile_loadd(6, k0 + d * kPage, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(6, k1 + d * kPage, 64);
      _tile_dpbf16ps(1, 4, 6);
    }
    _tile_stored(0, s.scores + b * kPage, kSpan * 4);
    if (b + 1 < blocks) _tile_stored(1, s.scores + (b + 1) * kPage, kSpan * 4);
  }
  if (pages.centres) {
    const int first = from / kPage;
    for (int page = first / kPage; page * kPage < first + blocks; page++) {
      const uint16_t* centres = pages.centres + pages.centres_stride * static_cast<size_t>(page);
      _tile_zero(0);
      for (int d = 0; d < dim; d += 32) {
        _tile_loadd(4, s.query + d, dim * 2);
        _tile_loadd(6, centres + d * kPage, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(6, centres + (dim + d) * kPage, 64);
        _tile_dpbf16ps(0, 4, 6);
      }
      _tile_stored(0, s.lacking, kPage * 4);
      for (int b = std::max(first, page * kPage); b < std::min(first + blocks, (page + 1) * kPage); b++)
        for (int i = 0; i < count; i++) {
          float* scores = s.scores + i * kSpan + (b - first) * kPage;
          store(scores, load(scores) + splat(s.lacking[i * kPage + b % kPage]));
        }
    }
  }
  for (int i = 0; i < count; i++) {
    float* row = s.scores + i * kSpan;
    const int stop = limit + i - from, start = window ? limit + i - window - from : 0;
    for (int j = 0; j < start && j < blocks * kPage; j++) row[j] = -INFINITY;
    for (int j = stop < 0 ? 0 : stop; j < blocks * kPage; j++) row[j] = -INFINITY;
  }
}

// Under TileShape::attention: `count` (1 .. 16) queries of one head at consecutive positions; query i sees slots
// [first(i), limit + i), where first(i) = max(0, limit + i - window). Vectors lie `q_stride` and
// `out_stride` floats apart.
inline void attend_tiles(const float* q, size_t q_stride, int count, const Pages& pages, int limit, int window,
                         float scale, TileScratch& s, float* out, size_t out_stride) {
  const int dim = pages.dim;
  for (int i = 0; i < kQueries; i++)
    for (int d = 0; d < dim; d += 16)
      store_as(s.query + i * dim + d,
               to_bf16(i < count ? load(q + static_cast<size_t>(i) * q_stride + d) * scale : splat(0.0f)));
  float top[kQueries], total[kQueries];
  for (int i = 0; i < kQueries; i++) top[i] = -INFINITY, total[i] = 0;
  std::memset(s.sums, 0, sizeof(float) * kQueries * static_cast<size_t>(dim));

  settle_memory();
  const int begin = window && limit > window ? (limit - window) / kPage * kPage : 0;
  const int end = limit + count - 1;
  for (int from = begin; from < end; from += kSpan) {
    const int blocks = ((end - from < kSpan ? end - from : kSpan) + kPage - 1) / kPage;
    score_span(pages, count, from, blocks, limit, window, s);
    for (int i = 0; i < count; i++) {
      float* row = s.scores + i * kSpan;
      uint16_t* w = s.weights + i * kSpan;
      f32x16 peak = splat(-INFINITY);
      for (int j = 0; j < blocks * kPage; j += 16) peak = vmax(peak, load(row + j));
      const float m = std::max(top[i], hmax(peak));
      if (m == -INFINITY) {
        std::memset(w, 0, static_cast<size_t>(blocks) * kPage * 2);
        continue;
      }
      f32x16 sum = splat(0.0f);
      for (int j = 0; j < blocks * kPage; j += 16) {
        f32x16 x = load(row + j);
        f32x16 e = (f32x16)((i32x16)vexp(x - m) & (i32x16)(x > splat(-3.0e38f)));
        sum += e;
        store_as(w + j, to_bf16(e));
      }
      const float keep = top[i] == -INFINITY ? 0.0f : std::exp(top[i] - m);
      total[i] = total[i] * keep + hsum(sum);
      top[i] = m;
      if (keep != 1.0f)
        for (int d = 0; d < dim; d += 16) store(s.sums + i * dim + d, load(s.sums + i * dim + d) * keep);
    }
    settle_memory();
    for (int d = 0; d < dim; d += 64) {
      const int lanes = dim - d < 64 ? (dim - d) / 16 : 4;
      float* sums = s.sums + d;
      _tile_loadd(0, sums, dim * 4);
      if (lanes > 1) _tile_loadd(1, sums + 16, dim * 4);
      if (lanes > 2) _tile_loadd(2, sums + 32, dim * 4);
      if (lanes > 3) _tile_loadd(3, sums + 48, dim * 4);
      for (int b = 0; b < blocks; b++) {
        const uint16_t* v = pages.values(from / kPage + b) + d * 2;
        _tile_loadd(5, s.weights + b * kPage, kSpan * 2);
        _tile_loadd(7, v, dim * 4);
        _tile_dpbf16ps(0, 5, 7);
        if (lanes > 1) {
          _tile_loadd(7, v + 32, dim * 4);
          _tile_dpbf16ps(1, 5, 7);
        }
        if (lanes > 2) {
          _tile_loadd(7, v + 64, dim * 4);
          _tile_dpbf16ps(2, 5, 7);
        }
        if (lanes > 3) {
          _tile_loadd(7, v + 96, dim * 4);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, sums, dim * 4);
      if (lanes > 1) _tile_stored(1, sums + 16, dim * 4);
      if (lanes > 2) _tile_stored(2, sums + 32, dim * 4);
      if (lanes > 3) _tile_stored(3, sums + 48, dim * 4);
    }
  }
  // Weights are known only now that all slots were seen, so the scores are computed once more.
  for (int from = begin; pages.tallies && from < end; from += kSpan) {
    const int blocks = ((end - from < kSpan ? end - from : kSpan) + kPage - 1) / kPage;
    score_span(pages, count, from, blocks, limit, window, s);
    for (int i = 0; i < count; i++)
      for (int b = 0; b < blocks; b++) {
        const f32x16 x = load(s.scores + i * kSpan + b * kPage);
        const f32x16 e = (f32x16)((i32x16)vexp(x - top[i]) & (i32x16)(x > splat(-3.0e38f)));
        pages.tally(from / kPage + b).add(e * (1.0f / total[i]));
      }
  }
  for (int i = 0; i < count; i++) {
    const float inverse = 1.0f / total[i];
    for (int d = 0; d < dim; d += 16)
      store(out + static_cast<size_t>(i) * out_stride + d, load(s.sums + i * dim + d) * inverse);
  }
}

}  // namespace pentad
#endif
