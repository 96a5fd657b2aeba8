// What a step needs is taken and planned before its ops run: they allocate nothing.
#include "step.h"

namespace pentad {

// Columns of what the mixer of any layer gives.
static int widest_mixer(const ModelWeights& weights) {
  int widest = 0;
  for (const LayerWeights& layer : weights.layers) widest = std::max(widest, mixed_columns(layer.mixer));
  return widest;
}

Step::Step(const pentad_config& c, Team& team, Products& products, const ModelWeights& weights, KvCache& cache, States& states)
    : c(c),
      team(team),
      products(products),
      weights(weights),
      cache(cache),
      states(states),
      q_dim(c.heads * c.head_dim),
      kv_dim(c.kv_heads * c.head_dim),
      wide(std::max({c.width, c.shared_values ? 0 : c.heads * c.head_dim, pad(c.ffn_width, 32), pad(widest_mixer(weights), 32)})),
      score_stride(pad(c.max_context, 16) + 16),
      plan(c, products, cache),
      scratch(static_cast<size_t>(team.size())) {
  const size_t dim = static_cast<size_t>(c.head_dim);
  for (Scratch& own : scratch) {
    if (!products.tiles()) own.scores.resize(static_cast<size_t>(kRowsTogether) * score_stride);
    own.tail.resize(static_cast<size_t>(kTailBlocks) * cache.head_size());
    if (cache.coded() || c.shared_values) own.room.resize(static_cast<size_t>(products.tiles() ? kSpanBlocks : kCodedSpan) * kPage * dim);
    own.normed.resize(static_cast<size_t>(c.width));
  }
}

void Step::take(const std::vector<Op>& program) {
  parts = std::any_of(program.begin(), program.end(), [](const Op& op) { return op.apart != 0; });
  gated = std::any_of(program.begin(), program.end(), [](const Op& op) { return op.kind == PENTAD_OP_ATTN_GATE; });
  plan.set_windowed(std::any_of(program.begin(), program.end(), [](const Op& op) { return op.window || op.chunk || (op.kind == PENTAD_OP_ATTEND && op.rotation >= 0); }));
  dual = std::any_of(program.begin(), program.end(), [](const Op& op) { return op.kind == PENTAD_OP_ATTEND && op.rotation >= 0; });
  for (const Op& op : program)
    if (op.kind == PENTAD_OP_ROUTE) routing.take(op.weights->experts);
    else if (op.kind == PENTAD_OP_CONVOLVE) recurrence.take(op.weights->mixer);
    else if (op.kind == PENTAD_OP_LATENT) latent.take(op.weights->mixer);
  const size_t rows = kRowsAtOnce, sections = dual ? kSections : 1, dim = static_cast<size_t>(c.head_dim);
  for (Scratch& own : scratch) {
    own.queries.resize(sections * rows * dim / 2);
    own.sections.resize(sections);
    own.masses.resize(dual ? sections * rows : 0);
    own.parts.resize((sections - 1) * rows * dim);
  }
  capacity = 0;
  reserve(c.max_tokens);
}

void Step::reserve(int tokens) {
  if (tokens <= capacity) return;
  // A step of one token takes one row per thread; see normed().
  const int rows = pad(std::max({tokens, 32, team.size()}), 32);
  const size_t n = static_cast<size_t>(rows);
  x.resize(n * c.width);
  if (parts) part.resize(n * c.width);
  if (gated) gates.resize(n * q_dim);
  squares.resize(n * static_cast<size_t>(c.heads + c.kv_heads));
  qkv.resize(n * (q_dim + 2 * kv_dim));
  attended.resize(n * q_dim);
  products.reserve(wide, rows);
  inputs.reserve(n, wide, products.tiles());
  hidden.reserve(n, pad(c.ffn_width, 32), products.tiles());
  for (Scratch& own : scratch) own.hidden.resize(n * kBlock * 2);
  routing.reserve(n, c.width, team.size());
  recurrence.reserve(n, team.size());
  latent.reserve(n, products.tiles());
  capacity = rows;  // last: what could not be had must be asked for again
}

void Step::prepare(const pentad_batch& b, const pentad_draws* d) {
  batch = &b;
  draws = d && d->count ? d : nullptr;
  reserve(b.tokens);
  const size_t logits = draws ? static_cast<size_t>(draws->count) * static_cast<size_t>(c.vocab) : 0;
  if (logits > kept.size()) kept.resize(logits);
  plan.make(b, team.active());
  if (cache.coded() && products.tiles()) {
    const size_t most = static_cast<size_t>(plan.unpacked_blocks()) * c.head_dim * kPage * 2;
    for (Scratch& own : scratch)
      if (own.unpacked.room.size() < most) own.unpacked.room.resize(most);
  }
  // A chunk of a prompt is computed in bf16. What is generated or drafted gets the same bits in every
  // batch, so it never is.
  // What has an adapter isn't either: that reads 8-bit codes.
  adapting.plan(b, team.size(), wide);
  split.clear();
  for (int s = 0; s < b.sequences; s++) {
    const int tokens = plan.tokens_of(s);
    split.add(!plan.drafts(s) && !adapting.has(s) && products.wide(tokens), tokens);
  }
  int limit = 0;
  for (int t = 0; t < b.tokens; t++) limit = std::max(limit, b.positions[t] + 1);
  cache.grow(limit);
  if (b.argmax) best.assign(static_cast<size_t>(b.rows) * team.size(), {-INFINITY, -1});
}

}  // namespace pentad
