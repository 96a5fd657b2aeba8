#include "attention_plan.h"

#include "attention.h"

namespace pentad {

bool AttentionPlan::unpacks(int s) const {
  return cache_.coded() && products_.tiles() && !drafts(s) && by_head(s) < 0 && tokens_of(s) * group() > kTileRows;
}

int AttentionPlan::unpacked_blocks() const {
  int blocks = 0;
  for (int s = 0; s < batch_->sequences; s++)
    if (unpacks(s)) blocks = std::max(blocks, (batch_->context_lens[s] + kPage - 1) / kPage);
  return blocks;
}

// Whether a sequence may be read together with others: on tiles, where it costs next to nothing that each
// sees all of it.
bool AttentionPlan::shares(int s) const {
  return products_.tiles() && tokens_of(s) == 1 && !drafts(s) && !cache_.tallies_of_block() && !windowed_ && by_head(s) < 0;
}

// Blocks that two sequences begin with.
int AttentionPlan::common_blocks(int one, int other) const {
  const int most = (std::min(batch_->context_lens[one], batch_->context_lens[other]) + kPage - 1) / kPage;
  const int32_t *a = table_of(one), *b = table_of(other);
  return static_cast<int>(std::mismatch(a, a + most, b).first - a);
}

// Puts the sequences that are read together with `leader`, which has no place yet, behind it into members_;
// returns how many blocks they have in common.
int AttentionPlan::gather_members(int leader) {
  int common = 0;
  members_.push_back(leader);
  placed_[static_cast<size_t>(leader)] = true;
  for (int s = leader + 1; s < batch_->sequences && shares(leader); s++) {
    if (placed_[static_cast<size_t>(s)] || !shares(s)) continue;
    const int same = common_blocks(leader, s);
    if (same < std::max(common, kCommonFrom)) continue;
    if (!common) common = same;
    members_.push_back(s);
    placed_[static_cast<size_t>(s)] = true;
  }
  return common;
}

// What an item costs, in slots times rows: on tiles most of it is reading, once for as many rows as a tile has.
int64_t AttentionPlan::cost(const Item& item, int rows) const {
  constexpr int kRead = 8;
  const int last = members_[static_cast<size_t>(item.first)];
  const int64_t slots = batch_->context_lens[last] - tokens_of(last) + item.end + kPage;
  if (!products_.tiles()) return slots * rows;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows, common = item.common * kPage;
  if (item.members == 1) return slots * (rows + kRead * tiles);
  int64_t found = kRead * tiles * common;
  for (int i = item.first; i < item.first + item.members; i++) {
    const int64_t own = batch_->context_lens[members_[static_cast<size_t>(i)]] + kPage;
    found += own * group() + kRead * (own - common);
  }
  return found;
}

void AttentionPlan::list_items() {
  constexpr int kChunk = 16;  // query tokens
  items_.clear();
  members_.clear();
  placed_.assign(static_cast<size_t>(batch_->sequences), false);
  for (int s = 0; s < batch_->sequences; s++) {
    if (placed_[static_cast<size_t>(s)]) continue;
    const int first = static_cast<int>(members_.size()), common = gather_members(s);
    const int members = static_cast<int>(members_.size()) - first, n = tokens_of(s);
    for (int h = 0; h < c_.kv_heads; h++)
      for (int begin = 0; begin < n; begin += kChunk) {
        const int end = std::min(n, begin + kChunk), rows = members * (end - begin) * group();
        items_.push_back({first, members, common, h, begin, end, 0, rows, 0});
        items_.back().row_cost = std::max<int64_t>(1, cost(items_.back(), rows) / rows);
      }
  }
}

void AttentionPlan::cut(int64_t parts) {
  int64_t total = 0;
  for (auto& i : items_) total += static_cast<int64_t>(i.rows_end) * i.row_cost;
  parts_.assign(static_cast<size_t>(parts), {});
  int64_t seen = 0;
  size_t part = 0;
  for (Item item : items_) {
    while (true) {
      const int64_t left = total * static_cast<int64_t>(part + 1) / parts - seen;
      const int rows = item.rows_end - item.rows_begin;
      int fit = static_cast<int>(std::min<int64_t>(rows, (left + item.row_cost / 2) / item.row_cost));
      if (part + 1 == static_cast<size_t>(parts)) fit = rows;
      if (fit > 0) {
        Item piece = item;
        piece.rows_end = item.rows_begin + fit;
        parts_[part].push_back(piece);
        seen += static_cast<int64_t>(fit) * item.row_cost;
        item.rows_begin += fit;
      }
      if (item.rows_begin == item.rows_end) break;
      part++;
    }
  }
}

void AttentionPlan::make(const pentad_batch& b, int parts) {
  batch_ = &b;
  list_items();
  cut(parts);
}

}  // namespace pentad
