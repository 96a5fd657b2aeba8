// Attention of one head alone, so that it can be held against the formula.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "attention.h"
#include "attention_tiles.h"
#include "guard.h"
#include "native.h"
#include "products.h"

namespace pentad {

namespace {

// Keys and values in pages that lie in reverse order, as a cache in use may have them.
class Cache {
 public:
  Cache(const float* keys, const float* values, int context, int dim)
      : table_(static_cast<size_t>((context + kPage - 1) / kPage)), dim_(dim) {
    data_.resize(table_.size() * elements());
    std::iota(table_.rbegin(), table_.rend(), 0);
    for (int i = 0; i < context; i++) {
      uint16_t* page = data_.data() + elements() * static_cast<size_t>(table_[static_cast<size_t>(i / kPage)]);
      const size_t row = static_cast<size_t>(i) * static_cast<size_t>(dim);
      write_key(page, dim, i % kPage, keys + row);
      write_value(page + dim * kPage, dim, i % kPage, values + row);
    }
  }
  Pages pages() const {
    return {.table = table_.data(), .base = reinterpret_cast<const uint8_t*>(data_.data()),
            .stride = head_bytes(dim_, {}), .dim = dim_};
  }

 private:
  size_t elements() const { return static_cast<size_t>(dim_) * kPage * 2; }
  std::vector<int32_t> table_;
  Aligned<uint16_t> data_;
  int dim_;
};

// What all queries have in common.
struct Task {
  const float* queries;
  int count, context, window;
  Scoring scoring;
  float slope, sink;
  float* out;
};

// use(rows, how many of them) for `together` queries at a time, the last ones of a text.
template <typename Use>
void in_turn(const Task& task, int dim, int together, Use&& use) {
  const int count = task.count, context = task.context, window = task.window;
  std::vector<uint32_t> pairs(static_cast<size_t>(together * dim / 2));
  std::vector<Row> rows(static_cast<size_t>(together));
  for (int begin = 0; begin < count; begin += together) {
    const int live = std::min(together, count - begin);
    for (int n = 0; n < live; n++) {
      uint32_t* own = pairs.data() + n * dim / 2;
      const size_t at = static_cast<size_t>(begin + n) * static_cast<size_t>(dim);
      write_query(own, task.queries + at, dim);
      const int limit = context - count + begin + n + 1;
      rows[static_cast<size_t>(n)] = {own, window && limit > window ? limit - window : 0, limit, task.out + at,
                                       true, task.slope, task.sink};
    }
    use(rows.data(), live);
  }
}

size_t attend_in_rows(const Task& task, const Pages& pages) {
  const int stride = (task.context + kPage - 1) / kPage * kPage + kPage;
  Aligned<float> scores(static_cast<size_t>(kRowsTogether) * static_cast<size_t>(stride));
  in_turn(task, pages.dim, kRowsTogether, [&](const Row* rows, int live) {
    attend_rows(rows, live, pages, task.scoring, {scores.data(), stride, nullptr}, {});
  });
  return scores.size() * sizeof(float) + kRowsTogether * static_cast<size_t>(pages.dim) * sizeof(uint16_t);
}

#if PENTAD_TILES
size_t attend_in_tiles(const Task& task, const Pages& pages) {
  Aligned<TileScratch> scratch(1);
  TileShape shape;
  in_turn(task, pages.dim, kTileRows, [&](const Row* rows, int live) {
    const Reader reader{pages, 0, live};
    TileAttention(rows, live, &reader, 1, 0, task.scoring, shape, scratch[0], nullptr).run({});
  });
  shape.release();
  return sizeof(TileScratch);
}
#endif

}  // namespace

}  // namespace pentad

extern "C" int64_t pentad_attend(const float* queries, const float* keys, const float* values, int32_t count,
                                 int32_t context, int32_t dim, int32_t window, int32_t tiled, float scale, float cap,
                                 float slope, float sink, float* out) {
  if (count < 1 || count > context || window < 0 || dim < 32 || dim > 256 || dim % 32) return -1;
  return pentad::guarded<int64_t>(-1, [&]() -> int64_t {
    const pentad::Cache cache(keys, values, context, dim);
    const pentad::Pages pages = cache.pages();
    const pentad::Task task{queries, count, context, window, {scale, cap}, slope, sink, out};
    if (!tiled) return static_cast<int64_t>(pentad::attend_in_rows(task, pages));
#if PENTAD_TILES
    if (pentad::Products(1).tiles())
      return static_cast<int64_t>(pentad::attend_in_tiles(task, pages));
#endif
    return -1;
  });
}
