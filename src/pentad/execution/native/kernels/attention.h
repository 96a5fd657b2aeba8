// Attention over paged keys and values, few query rows at a time. Blocks in codes are unpacked a span at a
// time into bf16 pages that stay in the first cache; the arithmetic is the same for both.
#pragma once
#include <algorithm>
#include <utility>

#include "activations.h"
#include "attention_dots.h"

namespace pentad {

// Scores of a row with slots [from, to) that are more than scaled products: scores[i] is that with slot `origin` + i,
// a product that lacks `factor`.
inline void bend(const Row& row, const Scoring& scoring, float factor, int origin, float* scores, int from, int to) {
  alignas(64) constexpr float kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const float inverse = scoring.cap != 0.0f ? 1.0f / scoring.cap : 0.0f;
  for (int i = from; i < to; i += 16) {
    f32x16 x = load(scores + i) * factor;
    if (scoring.cap != 0.0f) x = vtanh(x * inverse) * scoring.cap;
    store(scores + i, x + (load(kLane) + static_cast<float>(origin + i - (row.limit - 1))) * row.slope);
  }
}

// Neighbouring rows [begin, end) of one sequence.
struct Reader {
  Pages pages;
  int begin, end;
};

constexpr int kTileRows = 16;  // that are attended to at once on tiles
constexpr int kPlainSpan = 16;  // blocks of a pass where they are read in place
constexpr int kCodedSpan = 4;   // ... and where they are unpacked, or values are made of keys
constexpr int kSpanBlocks = 16;  // ... and on tiles

constexpr int kRowsAtOnce = 64;  // rows of attention that a thread gathers
constexpr int kSections = 3;     // of what a row sees, where chunks are dual: the own chunk, the one before, all others

// The rows of a thread that are attended to at once, or what one section of the slots gives them.
struct Gathered {
  Row rows[kRowsAtOnce];
  std::pair<int, int> places[kRowsAtOnce];  // token, head
  int of[kRowsAtOnce];                      // number among the rows of the first section
  Reader readers[kTileRows];
  int count = 0, readers_count = 0;
  bool continued = false;  // whether the next row reads what the last reader does

  // Takes a row, whose slots are those of `pages`.
  void take(const Pages& pages, const Row& row, int token, int head, int number) {
    if (!continued) readers[readers_count++] = {pages, count, count};
    continued = true;
    rows[count] = row, places[count] = {token, head}, of[count] = number;
    readers[readers_count - 1].end = ++count;
  }
};

// The first blocks that will be read behind the present ones.
struct Upcoming {
  const uint8_t* keys[kAheadBlocks] = {};
  int count = 0;
};

// What a thread computes in.
struct Workspace {
  float* scores;   // [kRowsTogether][stride]
  int stride;      // a multiple of 16
  uint16_t* room;  // for pages of codes or made values, [D * 16] each: kCodedSpan, kSpanBlocks on tiles
};

// Turns the scores of slots [from, to) into the weights e^(score - top) in bf16, two bytes each from
// `scores` on, 0 where the row does not see a slot; returns 1 / their sum.
inline float soften(const Row& row, float* scores, int from, int to) {
  for (int i = from; i < row.first; i++) scores[i] = -INFINITY;
  for (int i = row.limit; i < to; i++) scores[i] = -INFINITY;
  f32x16 top = splat(-INFINITY);
  for (int i = from; i < to; i += 16) top = vmax(top, load(scores + i));
  const float m = std::max(hmax(top), row.sink);
  f32x16 sum = splat(0.0f);
  for (int i = from; i < to; i += 16) {
    const f32x16 x = load(scores + i);
    const i32x16 live = x > splat(-3.0e38f);
    const f32x16 e = (f32x16)((i32x16)vexp(x - m) & live);
    sum += e;
    // In place, never ahead of what is still to be read.
    store_as(reinterpret_cast<uint16_t*>(scores) + i, to_bf16(e));
  }
  const float sunk = row.sink == -INFINITY ? 0.0f : std::exp(row.sink - m);
  const float all = hsum(sum) + sunk;
  if (row.mass) *row.mass = m + std::log(all);
  return 1.0f / all;
}

// How blocks are read: where they lie; from codes; or where they lie, with values that are made of the keys.
enum Reading { kInPlace, kFromCodes, kFromKeys };

// use(kN, first row) for groups of at most four rows.
template <typename Use>
PENTAD_INLINE void by_fours(int count, Use&& use) {
  int n = 0;
  for (; n + 4 <= count; n += 4) use(std::integral_constant<int, 4>{}, n);
  if (count - n == 3) use(std::integral_constant<int, 3>{}, n);
  else if (count - n == 2) use(std::integral_constant<int, 2>{}, n);
  else if (count - n == 1) use(std::integral_constant<int, 1>{}, n);
}

// Adds to the scores of rows with `count` blocks, from `block` on, what their keys are kept without.
inline void add_centres(const Row* rows, int rows_count, const Pages& pages, int block, int count, float scale,
                        const Workspace& w) {
  alignas(64) float lacking[kRowsTogether][2 * kPage];
  for (int page = block / kPage; page * kPage < block + count; page++) {
    const uint16_t* centres = pages.centres + pages.centres_stride * static_cast<size_t>(page);
    const uint16_t* parts[2] = {centres, centres + pages.dim * kPage};
    by_fours(rows_count, [&](auto kN, int r) PENTAD_LAMBDA {
      score_blocks<decltype(kN)::value, 2, false>(queries_of(rows + r), parts, pages.dim, scale, lacking[r], 2 * kPage);
    });
    for (int b = std::max(block, page * kPage); b < std::min(block + count, (page + 1) * kPage); b++)
      for (int r = 0; r < rows_count; r++) {
        float* scores = w.scores + static_cast<size_t>(r) * w.stride + b * kPage;
        store(scores, load(scores) + splat(lacking[r][b % kPage] + lacking[r][kPage + b % kPage]));
      }
  }
}

// Adds the weights that soften() left of rows to the tallies of blocks [begin, end).
inline void count_weights(const Row* rows, int count, const float* inverse, const Pages& pages, int begin, int end,
                          const Workspace& w) {
  for (int r = 0; r < count; r++) {
    if (!rows[r].counted) continue;
    const uint16_t* weights = reinterpret_cast<const uint16_t*>(w.scores + static_cast<size_t>(r) * w.stride);
    for (int b = begin; b < end; b++) pages.tally(b).add(load_bf16(weights + b * kPage) * inverse[r]);
  }
}

// At most kRowsTogether rows that read the same pages, which are read, and unpacked, once for all. The keys
// are followed by the first values, and those by the keys of `after`.
template <Reading kReading>
inline void attend(const Row* rows, int count, const Pages& pages, const Scoring& scoring, const Workspace& w,
                   const Upcoming& after) {
  const float scale = scoring.scale;
  int first = rows[0].first, limit = rows[0].limit;
  for (int n = 1; n < count; n++) {
    first = std::min(first, rows[n].first);
    limit = std::max(limit, rows[n].limit);
  }
  const int begin = first / kPage, end = (limit + kPage - 1) / kPage;
  constexpr bool kCoded = kReading == kFromCodes, kMade = kReading == kFromKeys;
  constexpr int kSpan = kReading == kInPlace ? kPlainSpan : kCodedSpan;
  const int values_dim = kMade ? pages.shared : pages.dim;
  const uint16_t* found[kSpan + kAheadBlocks];
  auto part = [&](int b, bool of_values) {
    if (b < end) return pages.part(b, of_values);
    if (!of_values) return pages.part(begin + (b - end) % (end - begin), true);
    return b - end < after.count ? after.keys[b - end] : pages.part(end - 1, true);
  };
  auto find = [&](int b, int n, bool of_values) {
    if constexpr (kMade) {
      for (int i = 0; of_values && i < n; i++) {
        uint16_t* room = w.room + i * pages.dim * kPage;
        pages.unpack(b + i, true, room);
        found[i] = room;
      }
      if (of_values) return;
    }
    for (int i = 0; i < n + (kCoded ? 0 : kAheadBlocks); i++) {
      if constexpr (kCoded) {
        uint16_t* room = w.room + i * pages.dim * kPage;
        found[i] = room;
        const uint8_t* ahead = part(b + i + kAheadBlocks, of_values);
        for (int line = 0; line < pages.dim * kPage; line += 64) __builtin_prefetch(ahead + line, 0, 2);
        pages.unpack(b + i, of_values, room);
      } else {
        found[i] = reinterpret_cast<const uint16_t*>(part(b + i, of_values));
      }
    }
  };
  // Queries pair by pair, so that one address leads to all.
  uint32_t pairs[kTurned ? kMostPairs * kRowsTogether : 1];
  const auto turned = [&pairs](int row, int j) PENTAD_LAMBDA { return pairs[j * kRowsTogether + row]; };
  if (kTurned && count == kRowsTogether)
    for (int j = 0; j < pages.dim / 2; j++)
      for (int row = 0; row < kRowsTogether; row++) pairs[j * kRowsTogether + row] = rows[row].query[j];
  for (int b = begin; b < end; b += kSpan) {
    const int n = std::min(kSpan, end - b);
    find(b, n, false);
    if (kTurned && count == kRowsTogether)
      score<kRowsTogether, !kCoded>(turned, found, n, pages.dim, scale, w.scores + b * kPage, w.stride);
    else
      by_fours(count, [&](auto kN, int r) PENTAD_LAMBDA {
        score<decltype(kN)::value, !kCoded>(queries_of(rows + r), found, n, pages.dim, scale,
                                            w.scores + static_cast<size_t>(r) * w.stride + b * kPage, w.stride);
      });
    if (pages.centres) add_centres(rows, count, pages, b, n, scale, w);
  }
  for (int r = 0; r < count; r++)
    if (rows[r].bent(scoring))
      bend(rows[r], scoring, 1.0f, 0, w.scores + static_cast<size_t>(r) * w.stride, begin * kPage, end * kPage);
  float inverse[kRowsTogether];
  for (int r = 0; r < count; r++)
    inverse[r] = soften(rows[r], w.scores + static_cast<size_t>(r) * w.stride, begin * kPage, end * kPage);
  if (pages.tallies) count_weights(rows, count, inverse, pages, begin, end, w);
  for (int b = begin; b < end; b += kSpan) {
    const int n = std::min(kSpan, end - b);
    find(b, n, true);
    by_fours(count, [&](auto kN, int r) PENTAD_LAMBDA {
      sum_values<decltype(kN)::value, kReading == kInPlace>(rows + r, found, n, b, values_dim, b == begin,
                                               w.scores + static_cast<size_t>(r) * w.stride, w.stride);
    });
  }
  for (int r = 0; r < count; r++)
    for (int d = 0; d < values_dim; d += 16) store(rows[r].out + d, load(rows[r].out + d) * inverse[r]);
}

inline void attend_rows(const Row* rows, int count, const Pages& pages, const Scoring& scoring, const Workspace& w,
                        const Upcoming& after) {
  for (int r = 0; r < count; r += kRowsTogether) {
    const int together = std::min(kRowsTogether, count - r);
    if (pages.form.coded()) attend<kFromCodes>(rows + r, together, pages, scoring, w, after);
    else if (pages.shared) attend<kFromKeys>(rows + r, together, pages, scoring, w, after);
    else attend<kInPlace>(rows + r, together, pages, scoring, w, after);
  }
}

}  // namespace pentad
