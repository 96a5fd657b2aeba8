#include "step.h"

namespace pentad {

namespace {

// Every token of a tree sees its own slot and none that is not of the tree.
int check_tree(const pentad_batch& b, int s) {
  if (!b.tree_slots) return 0;
  const int context = b.context_lens[s], slots = b.tree_slots[s], end = b.starts[s + 1];
  if (slots < 0 || slots > 64 || slots > context) return 7;
  for (int t = b.starts[s]; t < end; t++) {
    if (!b.tree_masks[t]) continue;
    const int own = slots - (end - t);
    if (own < 0 || b.tree_masks[t] >> own != 1) return 7;
  }
  return 0;
}

// Sequences with slots by head are the last, have one token each, and pages for all their slots.
int check_by_head(const pentad_config& c, const pentad_batch& b) {
  if (b.by_head < 0 || b.by_head > b.sequences || b.by_head > b.tokens || b.head_width < 0) return 9;
  if (!b.by_head) return 0;
  const int64_t pages = static_cast<int64_t>(c.num_blocks) * c.layers * c.kv_heads;
  const int heads = c.layers * c.kv_heads;
  for (int s = b.sequences - b.by_head; s < b.sequences; s++)
    if (b.starts[s + 1] - b.starts[s] != 1 || (b.drafted && b.drafted[s]) || (b.tree_slots && b.tree_slots[s])) return 9;
  for (int i = 0; i < b.by_head * heads; i++) {
    const int context = b.head_lens[i];
    if (context < 1 || context > c.max_context || (context + kPage - 1) / kPage > b.head_width) return 9;
    const int32_t* table = b.head_pages + static_cast<size_t>(i) * static_cast<size_t>(b.head_width);
    for (int k = 0; k * kPage < context; k++)
      if (table[k] < 0 || table[k] >= pages) return 9;
  }
  return 0;
}

}  // namespace

int check_batch(const pentad_config& c, const pentad_batch& b) {
  if (b.tokens < 0 || b.sequences < 0 || b.table_width < 0) return 2;
  if (b.rows < 0 || b.rows > b.tokens) return 5;
  for (int t = 0; t < b.tokens; t++) {
    if (b.token_ids[t] < 0 || b.token_ids[t] >= c.vocab) return 1;
    if (b.positions[t] < 0 || b.positions[t] >= c.max_context) return 2;
    if (t < b.tokens - b.by_head && (b.slots[t] < 0 || b.slots[t] / kPage >= c.num_blocks)) return 3;
  }
  if (b.embedding_rows)
    for (int t = 0; t < b.tokens; t++)
      if (b.embedding_rows[t] < -1 || b.embedding_rows[t] >= b.embedding_count) return 10;
  if (b.starts[0] != 0 || b.starts[b.sequences] != b.tokens) return 2;
  for (int s = 0; s < b.sequences; s++) {
    const int context = b.context_lens[s], n = b.starts[s + 1] - b.starts[s];
    if (n < 0 || context < n || context > c.max_context) return 2;
    if (s >= b.sequences - b.by_head) continue;
    if ((context + kPage - 1) / kPage > b.table_width) return 4;
    const int32_t* table = b.block_tables + static_cast<size_t>(s) * b.table_width;
    for (int i = 0; i * kPage < context; i++)
      if (table[i] < 0 || table[i] >= c.num_blocks) return 4;
    if (b.drafted && (b.drafted[s] < 0 || b.drafted[s] > n)) return 7;
    if (const int wrong = check_tree(b, s)) return wrong;
  }
  if (const int wrong = check_by_head(c, b)) return wrong;
  for (int r = 0; r < b.rows; r++)
    if (b.logit_rows[r] < 0 || b.logit_rows[r] >= b.tokens) return 5;
  return 0;
}

}  // namespace pentad
