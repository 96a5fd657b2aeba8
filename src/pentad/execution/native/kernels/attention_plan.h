// Which thread attends to what in a step: the same in every layer.
#pragma once
#include <algorithm>
#include <vector>

#include "cache.h"
#include "native.h"
#include "products.h"
#include "threads.h"

namespace pentad {

// Attention of the same query tokens of some sequences with one key/value head, in rows: (sequence, token,
// query head), the head fastest.
struct Item {
  int32_t first, members;         // in members(): sequences that read the same first blocks
  int32_t common;                 // so many, where there are several
  int32_t head, begin, end;       // key/value head, query tokens of the step
  int32_t rows_begin, rows_end;   // of all rows
  int64_t row_cost;
};

class AttentionPlan {
 public:
  AttentionPlan(const pentad_config& c, const Products& products, const KvCache& cache)
      : c_(c), products_(products), cache_(cache) {}

  // Whether any layer has a window or chunks.
  void set_windowed(bool windowed) { windowed_ = windowed; }
  // Lists the attention of the step head by head, so that what a thread has read of one serves all that see it,
  // and cuts the list into equal costs, mid-item if need be.
  void make(const pentad_batch& b, int parts);

  const std::vector<Item>& of(int rank) const { return parts_[static_cast<size_t>(rank)]; }
  int member(const Item& item, int index) const { return members_[static_cast<size_t>(item.first + index)]; }
  int group() const { return c_.heads / c_.kv_heads; }
  int tokens_of(int s) const { return batch_->starts[s + 1] - batch_->starts[s]; }
  bool drafts(int s) const {
    return (batch_->drafted && batch_->drafted[s]) || (batch_->tree_slots && batch_->tree_slots[s]);
  }
  // Its number among those with slots by head, which are the last ones; negative for others.
  int by_head(int s) const { return s - (batch_->sequences - batch_->by_head); }
  // Slots that a head of a sequence has in use behind the step.
  int context_of(int s, int layer, int head) const {
    const int row = by_head(s);
    return row < 0 ? batch_->context_lens[s] : batch_->head_lens[row * heads() + layer * c_.kv_heads + head];
  }
  Pages pages_of(int s, int layer, int head) const {
    const int row = by_head(s);
    return row < 0 ? cache_.pages_of(table_of(s), layer, head) : cache_.pages_by_head(head_table(row, layer, head));
  }
  const int32_t* head_table(int row, int layer, int head) const {
    const size_t number = static_cast<size_t>(row) * static_cast<size_t>(heads()) + static_cast<size_t>(layer * c_.kv_heads + head);
    return batch_->head_pages + number * static_cast<size_t>(batch_->head_width);
  }
  const int32_t* table_of(int s) const { return batch_->block_tables + static_cast<size_t>(s) * batch_->table_width; }
  // Whether the codes of a sequence are unpacked once for several tiles.
  bool unpacks(int s) const;
  // The blocks of the longest of these sequences.
  int unpacked_blocks() const;

 private:
  static constexpr int kCommonFrom = 4;  // blocks from which sequences are read together

  int heads() const { return c_.layers * c_.kv_heads; }
  bool shares(int s) const;
  int common_blocks(int one, int other) const;
  int gather_members(int leader);
  int64_t cost(const Item& item, int rows) const;
  void list_items();
  void cut(int64_t parts);

  const pentad_config& c_;
  const Products& products_;
  const KvCache& cache_;
  bool windowed_ = false;
  const pentad_batch* batch_ = nullptr;
  std::vector<int32_t> members_;
  std::vector<bool> placed_;
  std::vector<Item> items_;
  std::vector<std::vector<Item>> parts_;
};

}  // namespace pentad
