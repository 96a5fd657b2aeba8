#include "step.h"

#include <bit>

namespace pentad {

namespace {

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

// The first slot that is seen from the last of `limit`.
int first_seen(const Op& op, int limit) {
  if (op.chunk) return (limit - 1) / op.chunk * op.chunk;
  return op.window && limit > op.window ? limit - op.window : 0;
}

// Where the reading of an item begins, if its rows are read alone.
Upcoming upcoming(const Step& s, const Item& item, const Op& op) {
  Upcoming found;
  const int member_rows = (item.end - item.begin) * s.plan.group();
  const int sequence = s.plan.member(item, item.rows_begin / member_rows);
  const Pages pages = s.plan.pages_of(sequence, op.layer, item.head);
  const int context = s.plan.context_of(sequence, op.layer, item.head), blocks = (context + kPage - 1) / kPage;
  const int first = first_seen(op, context) / kPage;
  for (; found.count < kAheadBlocks && first + found.count < blocks; found.count++)
    found.keys[found.count] = pages.block(first + found.count);
  return found;
}

// What attention gives for a head of a token, times the gate of these columns.
void gate(const Step& s, int token, int head, float* x) {
  const float* open = s.gates.data() + static_cast<size_t>(token) * s.q_dim + head * s.c.head_dim;
  for (int d = 0; d < s.c.head_dim; d += 16) store(x + d, load(x + d) * load(open + d));
}

void read_rows(Step& s, const Op& op, const Gathered& g, [[maybe_unused]] const Item& item, const Upcoming& after, int rank) {
  const Scoring scoring{op.scale, op.cap};
  Scratch& own = s.own(rank);
  const Workspace workspace{own.scores.data(), s.score_stride, own.room.data()};
#if PENTAD_TILES
  if (s.products.tiles())
    return TileAttention(g.rows, g.count, g.readers, g.readers_count, item.common, scoring, s.products.shape(rank), own.tiles,
                         workspace.room)
        .run(after);
#endif
  attend_rows(g.rows, g.count, g.readers[0].pages, scoring, workspace, after);
}

// Brings what two sections of its slots give a row together, by their shares in the softmax over both.
void merge(const Row& part, const Row& row, int dim) {
  const float top = std::max(*part.mass, *row.mass);
  const float a = std::exp(*row.mass - top), b = std::exp(*part.mass - top), once = 1.0f / (a + b);
  for (int d = 0; d < dim; d += 16) store(row.out + d, load(row.out + d) * (a * once) + load(part.out + d) * (b * once));
  *row.mass = top + std::log(a + b);
}

// Hands what attention gives for a head of a token on.
void hand_on(Step& s, const Op& op, float* x, int token, int head) {
  if (const int rank = s.c.shared_values)
    return quantize(x, s.latent.vectors.codes(rank, 1, head * s.batch->tokens), token, 0, rank / kBlock);
  const int per_head = s.c.head_dim / kBlock;
  if (op.gated) gate(s, token, head, x);
  s.input(s.q_dim).put(x, token, head * per_head, per_head);
}

void compute(Step& s, const Op& op, Gathered* sections, int count, const Item& item, const Upcoming& after, int rank) {
  Gathered& g = sections[0];
  for (int i = 0; i < count; i++)
    if (sections[i].count) read_rows(s, op, sections[i], item, after, rank);
  for (int i = 1; i < count; i++)
    for (int k = 0; k < sections[i].count; k++) merge(sections[i].rows[k], g.rows[sections[i].of[k]], s.c.head_dim);
  for (int i = 0; i < g.count; i++) hand_on(s, op, g.rows[i].out, g.places[i].first, g.places[i].second);
  for (int i = 0; i < count; i++) sections[i].count = sections[i].readers_count = 0, sections[i].continued = false;
}

// Gathers a row: its query, and the slots that it sees. Of dual chunks, those of its own chunk, of the one before and
// of all earlier ones are sections, each asked by the query turned on to there.
void gather(Step& s, const Op& op, Gathered* sections, const Pages& pages, int limit, int token, int head, bool counted, int rank) {
  const int dim = s.c.head_dim, first = first_seen(op, limit), number = sections[0].count;
  const std::vector<float>&slopes = op.weights->slopes, &sinks = op.weights->sinks;
  const Rotation* dual = s.cache.rotation(op.rotation);
  Scratch& own = s.own(rank);
  float* query = s.head_row(head, token);
  const int chunk = dual ? dual->length() : 0, begin = chunk ? (limit - 1) / chunk * chunk : first;
  const int bounds[kSections + 1] = {limit, begin, std::max(0, begin - chunk), 0};
  for (int i = 0; i < (chunk ? kSections : 1) && (!i || bounds[i]); i++) {
    Gathered& g = sections[i];
    const size_t at = static_cast<size_t>(i) * kRowsAtOnce + static_cast<size_t>(g.count);
    uint32_t* pairs = own.queries.data() + at * static_cast<size_t>(dim / 2);
    float turned[kMostDim];
    const float* asking = query;
    if (chunk) {
      std::copy_n(query, dim, turned);
      if (i) dual->turn_on(limit - 1, i > 1, turned);
      if (s.cache.coded()) rotate(turned, dim);
      asking = turned;
    }
    write_query(pairs, asking, dim);
    Row row{pairs, bounds[i + 1], bounds[i], s.given(token, head), counted,
            slopes.empty() ? 0.0f : slopes[static_cast<size_t>(head)],
            sinks.empty() || i ? -INFINITY : sinks[static_cast<size_t>(head)]};
    if (i) row.out = own.parts.data() + (at - kRowsAtOnce) * static_cast<size_t>(dim);
    if (chunk) row.mass = own.masses.data() + at;
    g.take(pages, row, token, head, number);
  }
}

}  // namespace

void attend(Step& s, const Op& op, int rank) {
  const int layer = op.layer;
  const pentad_batch& b = *s.batch;
  const AttentionPlan& plan = s.plan;
  const int group = plan.group(), most = s.products.tiles() ? kTileRows : kRowsAtOnce;
  const int count = op.rotation >= 0 ? kSections : 1;
  Scratch& own = s.own(rank);
  own.unpacked.sequence = -1;
  const std::vector<Item>& items = plan.of(rank);
  Gathered* sections = own.sections.data();
  const Gathered& g = sections[0];
  Pages pages{};
  for (size_t number = 0; number < items.size(); number++) {
    const Item& item = items[number];
    const Upcoming after = number + 1 < items.size() ? upcoming(s, items[number + 1], op) : Upcoming{};
    const int member_rows = (item.end - item.begin) * group;
    for (int r = item.rows_begin; r < item.rows_end; r++) {
      const int sequence = plan.member(item, r / member_rows), tokens = plan.tokens_of(sequence);
      const int token = item.begin + r % member_rows / group, head = item.head * group + r % group;
      const int t = b.starts[sequence] + token, before = plan.context_of(sequence, layer, item.head) - tokens;
      const uint64_t path = b.tree_slots ? b.tree_masks[t] : 0;
      const int tree = b.tree_slots ? b.context_lens[sequence] - b.tree_slots[sequence] : 0;
      const int limit = path ? tree + std::popcount(path) : before + token + 1;
      if (!g.count || r % member_rows == 0) {
        pages = plan.pages_of(sequence, layer, item.head);
        if (path) pages = along_path(pages, tree, path, own.tail.data());
        else if (plan.unpacks(sequence))
          pages = plain_pages(s, pages, sequence, item.head, first_seen(op, before + 1), own.unpacked);
        for (int i = 0; i < count; i++) sections[i].continued = false;
      }
      const bool drafted = b.drafted && token >= tokens - b.drafted[sequence];
      gather(s, op, sections, pages, limit, t, head, !path && !drafted, rank);
      // A token of a tree has pages of its own, so the rows in front of its next head wait for nothing.
      const bool alone = b.tree_slots && (r + 1) % group == 0 && (path || next_path(b, t));
      // The rows of a member stay together where they fit.
      const int next = (r + 1) % member_rows ? 1 : std::min(member_rows, most);
      if (r + 1 == item.rows_end || alone || g.count + next > most) compute(s, op, sections, count, item, after, rank);
    }
  }
  s.team.barrier();
}

}  // namespace pentad
