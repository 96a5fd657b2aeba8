// Attention of up to 16 query rows at a time on AMX tiles: scores, softmax and sums per 256 slots,
// with a running maximum (FlashAttention), so nothing grows with the context. Spans begin at multiples of 256
// slots and a tile multiplies each row for itself: what a row gets does not depend on the rows beside it.
#pragma once
#include "attention.h"
#include "code_tiles.h"

#if PENTAD_TILES
namespace pentad {

constexpr int kSpan = kSpanBlocks * kPage;  // slots per pass; as many as a page of centres is for

struct TileScratch {
  alignas(64) float scores[kTileRows * kSpan];
  alignas(64) uint16_t weights[kTileRows * kSpan];
  alignas(64) uint16_t query[kTileRows * kMostDim];
  alignas(64) float sums[kTileRows * kMostDim];
  alignas(64) float lacking[kTileRows * kPage];
  // What a span reads, in this order: the keys of all parts, their values, the first keys of the span behind.
  const uint8_t* reads[2 * kTileRows * kSpanBlocks + kAheadBlocks];
};

// Rows that read the same blocks of a span, [from, to) of the sequence.
struct SpanPart {
  const Pages* pages;
  int row, rows, from, to;
};

class TileAttention {
 public:
  // `room` holds kSpanBlocks pages for blocks of codes and for values that are made of keys. The first `common` blocks are the same for all readers.
  TileAttention(const Row* rows, int count, const Reader* readers, int readers_count, int common, const Scoring& scoring,
                TileShape& shape, TileScratch& scratch, uint16_t* room)
      : rows_(rows), count_(count), readers_(readers), readers_count_(readers_count), common_(common),
        dim_(readers[0].pages.dim), values_dim_(readers[0].pages.values_dim()), form_(readers[0].pages.form),
        shared_(readers[0].pages.shared), scoring_(scoring),
        bent_(std::any_of(rows, rows + count, [&](const Row& row) { return row.bent(scoring); })),
        scale_(bent_ ? 1.0f : scoring.scale), shape_(shape), s_(scratch),
        room_(room) {}

  void run(const Upcoming& after) {
    int first = rows_[0].first;
    for (int i = 0; i < count_; i++) {
      first = std::min(first, rows_[i].first);
      limit_ = std::max(limit_, rows_[i].limit);
      std::memcpy(s_.query + i * dim_, rows_[i].query, sizeof(uint16_t) * static_cast<size_t>(dim_));
      top_[i] = rows_[i].sink, total_[i] = rows_[i].sink == -INFINITY ? 0.0f : 1.0f;
    }
    std::memset(s_.sums, 0, sizeof(float) * static_cast<size_t>(count_ * values_dim_));
    first_block_ = first / kPage;
    const int begin = first / kSpan * kSpan;
    for (int from = begin; from < limit_; from += kSpan) {
      plan(from, after);
      score(from);
      for (int i = 0; i < count_; i++) soften(i, from);
      sum(from);
    }
    // Weights are known only now that all slots were seen, so the scores are computed once more.
    for (int from = begin; readers_[0].pages.tallies && from < limit_; from += kSpan) {
      plan(from, after);
      score(from);
      count_weights(from);
    }
    for (int i = 0; i < count_; i++) {
      const float inverse = 1.0f / total_[i];
      if (rows_[i].mass) *rows_[i].mass = top_[i] + std::log(total_[i]);
      for (int d = 0; d < values_dim_; d += 16) store(rows_[i].out + d, load(s_.sums + i * values_dim_ + d) * inverse);
    }
  }

 private:
  // Lists the parts of the span from slot `from` on, and what they read.
  int list_parts(int from, SpanPart* parts) const {
    int found = 0;
    auto add = [&](const Pages& pages, int row, int rows, int begin, int end) {
      int limit = 0;
      for (int i = row; i < row + rows; i++) limit = std::max(limit, rows_[i].limit);
      begin = std::max({begin, from / kPage, first_block_});
      end = std::min({end, from / kPage + kSpanBlocks, (limit + kPage - 1) / kPage});
      if (begin < end) parts[found++] = {&pages, row, rows, begin, end};
    };
    if (common_) add(readers_[0].pages, 0, count_, 0, common_);
    for (int i = 0; i < readers_count_; i++)
      add(readers_[i].pages, readers_[i].begin, readers_[i].end - readers_[i].begin, common_, INT32_MAX);
    return found;
  }
  void plan(int from, const Upcoming& after) {
    parts_count_ = list_parts(from, parts_);
    int reads = 0;
    for (bool of_values : {false, true})
      for (int i = 0; i < parts_count_; i++)
        for (int b = parts_[i].from; b < parts_[i].to; b++) s_.reads[reads++] = parts_[i].pages->part(b, of_values);
    SpanPart next[kTileRows + 1];
    const int nexts = from + kSpan < limit_ ? list_parts(from + kSpan, next) : 0;
    const uint8_t* last = s_.reads[reads - 1];
    for (int i = 0; i < kAheadBlocks; i++) {
      const uint8_t* ahead = nexts ? last : i < after.count ? after.keys[i] : last;
      if (nexts && next[0].from + i < next[0].to) ahead = next[0].pages->part(next[0].from + i, false);
      s_.reads[reads++] = ahead;
    }
  }
  // The page of bf16 of read number `read`; what stands kAheadBlocks further is fetched.
  const uint16_t* page(int read, bool of_values, uint16_t* room) const {
    const uint8_t *found = s_.reads[read], *ahead = s_.reads[read + kAheadBlocks];
    const int bytes = static_cast<int>(form_.part_bytes(dim_, of_values));
    for (int line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line, 0, 2);
    if (!form_.coded() && !(shared_ && of_values)) return reinterpret_cast<const uint16_t*>(found);
    if (shared_) values_of_keys(found, values_dim_, room);
    else if (of_values) unpack_values(found, dim_, form_.values, room);
    else unpack_keys(found, dim_, form_.keys, room);
    settle_memory();
    return room;
  }

  void score(int from) {
    settle_memory();
    int read = 0;
    for (int i = 0; i < parts_count_; i++) {
      const SpanPart& part = parts_[i];
      shape_.attention(part.rows);
      const uint16_t* query = s_.query + part.row * dim_;
      float* scores = s_.scores + part.row * kSpan + (part.from * kPage - from);
      const int blocks = part.to - part.from;
      for (int b = 0; b < blocks; b += 2) {
        const bool pair = b + 1 < blocks;
        const uint16_t* k0 = page(read + b, false, room_);
        const uint16_t* k1 = pair ? page(read + b + 1, false, room_ + dim_ * kPage) : k0;
        _tile_zero(0);
        _tile_zero(1);
        for (int d = 0; d < dim_; d += 32) {
          _tile_loadd(4, query + d, dim_ * 2);
          _tile_loadd(6, k0 + d * kPage, 64);
          _tile_dpbf16ps(0, 4, 6);
          _tile_loadd(6, k1 + d * kPage, 64);
          _tile_dpbf16ps(1, 4, 6);
        }
        _tile_stored(0, scores + b * kPage, kSpan * 4);
        if (pair) _tile_stored(1, scores + (b + 1) * kPage, kSpan * 4);
      }
      read += blocks;
      if (part.pages->centres) add_centres(part, from, query, scores);
    }
    settle_memory();
    for (int i = 0; bent_ && i < count_; i++) {
      const Seen at = seen(i, from);
      bend(rows_[i], scoring_, scoring_.scale, from, s_.scores + i * kSpan, at.from, at.to);
    }
  }
  // What the keys are kept without.
  void add_centres(const SpanPart& part, int from, const uint16_t* query, float* scores) {
    const uint16_t* centres = part.pages->centres + part.pages->centres_stride * static_cast<size_t>(from / kSpan);
    _tile_zero(0);
    for (int d = 0; d < dim_; d += 32) {
      _tile_loadd(4, query + d, dim_ * 2);
      _tile_loadd(6, centres + d * kPage, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(6, centres + (dim_ + d) * kPage, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, s_.lacking, kPage * 4);
    settle_memory();
    for (int i = 0; i < part.rows; i++)
      for (int b = part.from; b < part.to; b++) {
        float* at = scores + i * kSpan + (b - part.from) * kPage;
        store(at, load(at) + splat(s_.lacking[i * kPage + b % kSpanBlocks]));
      }
  }

  // The slots of a span that a row sees, as places in it, and the vectors of 16 that hold them.
  struct Seen {
    int begin, end, from, to;
  };
  Seen seen(int row, int from) const {
    const int begin = std::max(rows_[row].first - from, 0), end = std::min(rows_[row].limit - from, kSpan);
    if (begin >= end) return {0, 0, 0, 0};
    return {begin, end, begin / kPage * kPage, (end + kPage - 1) / kPage * kPage};
  }
  // Scores into weights e^(score - top) in bf16, 0 where the row does not see a slot that others see.
  void soften(int row, int from) {
    float* scores = s_.scores + row * kSpan;
    uint16_t* weights = s_.weights + row * kSpan;
    const Seen at = seen(row, from);
    if (!at.end) {
      std::memset(weights, 0, sizeof(uint16_t) * kSpan);
      return;
    }
    for (int i = at.from; i < at.begin; i++) scores[i] = -INFINITY;
    for (int i = at.end; i < at.to; i++) scores[i] = -INFINITY;
    f32x16 peak = splat(-INFINITY);
    for (int i = at.from; i < at.to; i += 16) peak = vmax(peak, load(scores + i));
    const float top = std::max(top_[row], hmax(peak) * scale_);
    f32x16 sum = splat(0.0f);
    for (int i = at.from; i < at.to; i += 16) {
      const f32x16 e = weight(scores + i, top);
      sum += e;
      store_as(weights + i, to_bf16(e));
    }
    if (at.from) std::memset(weights, 0, sizeof(uint16_t) * static_cast<size_t>(at.from));
    if (at.to < kSpan) std::memset(weights + at.to, 0, sizeof(uint16_t) * static_cast<size_t>(kSpan - at.to));
    const float keep = top_[row] == -INFINITY ? 0.0f : std::exp(top_[row] - top);
    total_[row] = total_[row] * keep + hsum(sum);
    top_[row] = top;
    if (keep != 1.0f)
      for (int d = 0; d < values_dim_; d += 16)
        store(s_.sums + row * values_dim_ + d, load(s_.sums + row * values_dim_ + d) * keep);
  }
  PENTAD_INLINE f32x16 weight(const float* scores, float top) const {
    const f32x16 x = load(scores);
    return (f32x16)((i32x16)vexp(x * scale_ - top) & (i32x16)(x > splat(-3.0e38f)));
  }
  void count_weights(int from) {
    for (const Reader* reader = readers_; reader < readers_ + readers_count_; reader++)
      for (int row = reader->begin; row < reader->end; row++) {
        if (!rows_[row].counted) continue;
        float* scores = s_.scores + row * kSpan;
        const Seen at = seen(row, from);
        for (int i = at.from; i < at.begin; i++) scores[i] = -INFINITY;
        for (int i = at.end; i < at.to; i++) scores[i] = -INFINITY;
        for (int i = at.from; i < at.to; i += kPage)
          reader->pages.tally((from + i) / kPage).add(weight(scores + i, top_[row]) * (1.0f / total_[row]));
      }
  }

  void sum(int from) {
    settle_memory();
    int read = 0;
    for (int i = 0; i < parts_count_; i++) read += parts_[i].to - parts_[i].from;
    const uint16_t* values[kSpanBlocks];
    for (int i = 0; i < parts_count_; i++) {
      const SpanPart& part = parts_[i];
      shape_.attention(part.rows);
      const uint16_t* weights = s_.weights + part.row * kSpan + (part.from * kPage - from);
      const int blocks = part.to - part.from;
      for (int d = 0; d < values_dim_; d += 64) {
        const int lanes = std::min(4, (values_dim_ - d) / 16);
        float* sums = s_.sums + part.row * values_dim_ + d;
        _tile_loadd(0, sums, values_dim_ * 4);
        if (lanes > 1) _tile_loadd(1, sums + 16, values_dim_ * 4);
        if (lanes > 2) _tile_loadd(2, sums + 32, values_dim_ * 4);
        if (lanes > 3) _tile_loadd(3, sums + 48, values_dim_ * 4);
        for (int b = 0; b < blocks; b++) {
          if (!d) values[b] = page(read + b, true, room_ + static_cast<size_t>(b * values_dim_ * kPage));
          const uint16_t* v = values[b] + d * 2;
          _tile_loadd(5, weights + b * kPage, kSpan * 2);
          _tile_loadd(7, v, values_dim_ * 4);
          _tile_dpbf16ps(0, 5, 7);
          if (lanes > 1) {
            _tile_loadd(7, v + 32, values_dim_ * 4);
            _tile_dpbf16ps(1, 5, 7);
          }
          if (lanes > 2) {
            _tile_loadd(7, v + 64, values_dim_ * 4);
            _tile_dpbf16ps(2, 5, 7);
          }
          if (lanes > 3) {
            _tile_loadd(7, v + 96, values_dim_ * 4);
            _tile_dpbf16ps(3, 5, 7);
          }
        }
        _tile_stored(0, sums, values_dim_ * 4);
        if (lanes > 1) _tile_stored(1, sums + 16, values_dim_ * 4);
        if (lanes > 2) _tile_stored(2, sums + 32, values_dim_ * 4);
        if (lanes > 3) _tile_stored(3, sums + 48, values_dim_ * 4);
      }
      read += blocks;
    }
    settle_memory();
  }

  const Row* rows_;
  const int count_;
  const Reader* readers_;
  const int readers_count_, common_, dim_, values_dim_;
  const KvForm form_;
  const bool shared_;
  const Scoring scoring_;
  const bool bent_;
  const float scale_;  // that the scores lack
  TileShape& shape_;
  TileScratch& s_;
  uint16_t* room_;
  int limit_ = 0, first_block_ = 0, parts_count_ = 0;
  SpanPart parts_[kTileRows + 1];
  float top_[kTileRows], total_[kTileRows];
};

}  // namespace pentad
#endif
