#include "step.h"

#include <bit>

namespace pentad {

namespace {

// The rows of a thread that are attended to at once.
struct Gathered {
  Row rows[kRowsAtOnce];
  std::pair<int, int> places[kRowsAtOnce];  // token, head
  Reader readers[kTileRows];
  int count = 0, readers_count = 0;
};

// Whether the token behind `t` is of a tree.
bool next_path(const pentad_batch& b, int t) { return t + 1 < b.tokens && b.tree_masks[t + 1]; }

// The pages in bf16 from the block of slot `first` on, for tiles.
const Pages& plain_pages(const Step& s, const Pages& pages, int sequence, int head, int first, Unpacked& u) {
  if (u.sequence != sequence || u.head != head) {
    const int blocks = (s.batch->context_lens[sequence] + kPage - 1) / kPage;
    u.pages = pages.unpacked(first / kPage, blocks - first / kPage, u.room.data());
    u.sequence = sequence, u.head = head;
  }
  return u.pages;
}

// Where the reading of an item begins, if its rows are read alone.
Upcoming upcoming(const Step& s, const Item& item, int layer, int window) {
  Upcoming found;
  const int member_rows = (item.end - item.begin) * s.plan.group();
  const int sequence = s.plan.member(item, item.rows_begin / member_rows);
  const Pages pages = s.plan.pages_of(sequence, layer, item.head);
  const int context = s.plan.context_of(sequence, layer, item.head), blocks = (context + kPage - 1) / kPage;
  const int first = window && context > window ? (context - window) / kPage : 0;
  for (; found.count < kAheadBlocks && first + found.count < blocks; found.count++)
    found.keys[found.count] = pages.block(first + found.count);
  return found;
}

// What attention gives for a head of a token, times the gate of these columns.
void gate(const Step& s, int token, int head, float* x) {
  const float* open = s.gates.data() + static_cast<size_t>(token) * s.q_dim + head * s.c.head_dim;
  for (int d = 0; d < s.c.head_dim; d += 16) store(x + d, load(x + d) * load(open + d));
}

void compute(Step& s, const Op& op, Gathered& g, [[maybe_unused]] const Item& item, const Upcoming& after, int rank) {
  const Scoring scoring{op.scale, op.cap};
  Scratch& own = s.own(rank);
  const Workspace workspace{own.scores.data(), s.score_stride, own.room.data()};
#if PENTAD_TILES
  if (s.products.tiles())
    TileAttention(g.rows, g.count, g.readers, g.readers_count, item.common, scoring, s.products.shape(rank), own.tiles,
                  workspace.room)
        .run(after);
  else
#endif
    attend_rows(g.rows, g.count, g.readers[0].pages, scoring, workspace, after);
  const Input next = s.input(s.q_dim);
  const int per_head = s.c.head_dim / kBlock;
  for (int i = 0; i < g.count; i++) {
    const auto [token, head] = g.places[i];
    if (op.gated) gate(s, token, head, g.rows[i].out);
    next.put(g.rows[i].out, token, head * per_head, per_head);
  }
  g.count = g.readers_count = 0;
}

}  // namespace

void attend(Step& s, const Op& op, int rank) {
  const int layer = op.layer;
  const pentad_batch& b = *s.batch;
  const AttentionPlan& plan = s.plan;
  const int dim = s.c.head_dim, group = plan.group();
  const std::vector<float>&slopes = op.weights->slopes, &sinks = op.weights->sinks;
  const int window = op.window, most = s.products.tiles() ? kTileRows : kRowsAtOnce;
  Scratch& own = s.own(rank);
  own.unpacked.sequence = -1;
  const std::vector<Item>& items = plan.of(rank);
  Gathered g;
  for (size_t number = 0; number < items.size(); number++) {
    const Item& item = items[number];
    const Upcoming after = number + 1 < items.size() ? upcoming(s, items[number + 1], layer, window) : Upcoming{};
    const int member_rows = (item.end - item.begin) * group;
    for (int r = item.rows_begin; r < item.rows_end; r++) {
      const int sequence = plan.member(item, r / member_rows), tokens = plan.tokens_of(sequence);
      const int token = item.begin + r % member_rows / group, head = item.head * group + r % group;
      const int t = b.starts[sequence] + token, before = plan.context_of(sequence, layer, item.head) - tokens;
      const uint64_t path = b.tree_slots ? b.tree_masks[t] : 0;
      const int tree = b.tree_slots ? b.context_lens[sequence] - b.tree_slots[sequence] : 0;
      const int limit = path ? tree + std::popcount(path) : before + token + 1;
      if (!g.count || r % member_rows == 0) {
        Pages pages = plan.pages_of(sequence, layer, item.head);
        if (path) pages = along_path(pages, tree, path, own.tail.data());
        else if (plan.unpacks(sequence))
          pages = plain_pages(s, pages, sequence, item.head, window ? std::max(0, before + 1 - window) : 0, own.unpacked);
        g.readers[g.readers_count++] = {pages, g.count, g.count};
      }
      uint32_t* query = own.queries.data() + static_cast<size_t>(g.count) * (dim / 2);
      write_query(query, s.head_row(head, t), dim);
      const bool drafted = b.drafted && token >= tokens - b.drafted[sequence];
      g.rows[g.count] = {query, window && limit > window ? limit - window : 0, limit,
                         s.attended.data() + static_cast<size_t>(t) * s.q_dim + head * dim, !path && !drafted,
                         slopes.empty() ? 0.0f : slopes[static_cast<size_t>(head)],
                         sinks.empty() ? -INFINITY : sinks[static_cast<size_t>(head)]};
      g.places[g.count++] = {t, head};
      g.readers[g.readers_count - 1].end = g.count;
      // A token of a tree has pages of its own, so the rows in front of its next head wait for nothing.
      const bool alone = b.tree_slots && (r + 1) % group == 0 && (path || next_path(b, t));
      // The rows of a member stay together where they fit.
      const int next = (r + 1) % member_rows ? 1 : std::min(member_rows, most);
      if (r + 1 == item.rows_end || alone || g.count + next > most) compute(s, op, g, item, after, rank);
    }
  }
  s.team.barrier();
}

}  // namespace pentad
