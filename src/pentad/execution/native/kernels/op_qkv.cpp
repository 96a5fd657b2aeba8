#include "step.h"

namespace pentad {

namespace {

// Where the heads of a thread begin, queries in front of keys and values. Those are written to their slots as
// well, which for many tokens takes another quarter of their time.
int first_head(const Step& s, int rank) {
  const int query = 4, written = s.batch->tokens > 1 ? 5 : 4, queries = s.c.heads * query;
  const int cost = (queries + 2 * s.c.kv_heads * written) * rank / s.team.active();
  return cost <= queries ? (cost + query / 2) / query : s.c.heads + (cost - queries + written / 2) / written;
}

// Writes a token's key or value to its place in a block of a head.
void write_entry(const Step& s, uint8_t* block, int offset, bool key, const float* x) {
  const int dim = s.c.head_dim;
  const KvForm form = s.cache.form();
  if (!key && !offset) clear_values(block, dim, form);
  uint16_t* page = reinterpret_cast<uint16_t*>(block);
  if (form.coded() && key) code_key(block, dim, form.keys, offset, x);
  else if (form.coded()) code_value(block + form.part_at(dim, true), dim, form.values, offset, x);
  else if (key) write_key(page, dim, offset, x);
  else write_value(page + dim * kPage, dim, offset, x);
}

// Writes a head's keys or values of all tokens to their slots; `row` is its number in qkv.
void write_head(Step& s, int layer, int head, bool key, int row) {
  const pentad_batch& b = *s.batch;
  KvCache& cache = s.cache;
  const int dim = s.c.head_dim;
  const KeyCentre centre = key ? cache.centre_of(layer, head) : KeyCentre{};
  float middle[256];
  const int whole = b.tokens - b.by_head;
  for (int t = 0, last = -1; t < whole; t++) {
    float* x = s.head_row(row, t);
    const int offset = b.slots[t] % kPage;
    uint8_t* block = cache.head(layer, head, b.slots[t] / kPage);
    if (key && cache.tallies_of_block()) cache.tallies(cache.number(layer, head), b.slots[t] / kPage)->slot[offset] = 0;
    if (centre.bias) {
      if (const int place = b.positions[t] / kPage; place != last) centre.at(last = place, middle);
      for (int d = 0; d < dim; d += 16) store(x + d, load(x + d) - load(middle + d));
    }
    write_entry(s, block, offset, key, x);
  }
  for (int t = whole; t < b.tokens; t++) {
    const int sequence = t - b.tokens + b.sequences, slot = s.plan.context_of(sequence, layer, head) - 1;
    const int page = s.plan.head_table(t - whole, layer, head)[slot / kPage];
    if (key && cache.tallies_of_block()) cache.page_tally(page)->slot[slot % kPage] = 0;
    write_entry(s, cache.page(page), slot % kPage, key, s.head_row(row, t));
  }
}

// Queries, keys or values: their weights, and where their heads lie among those of a step.
struct Part {
  int tensor;
  const Weights& w;
  const std::vector<float>&bias, &norm;
  int first, count;
  int from = 0, to = 0;  // those of this thread
};

// Whether scales stand for every head, and whether one norm goes over all heads of a token.
bool has_scales_of_all(const Step& s, const Part& part) { return part.norm.size() > static_cast<size_t>(s.c.head_dim); }
bool over_all(const Step& s, const Op& op, const Part& part) { return !op.each && has_scales_of_all(s, part); }

float* squares_of(Step& s, int row) { return s.squares.data() + static_cast<size_t>(row) * static_cast<size_t>(s.batch->tokens); }

// Cuts the heads of this thread.
void clip(Step& s, float most, const Part& part) {
  for (int h = part.from; h < part.to; h++)
    for (int t = 0; t < s.batch->tokens; t++) {
      float* x = s.head_row(part.first + h, t);
      for (int d = 0; d < s.c.head_dim; d += 16) store(x + d, vmax(vmin(load(x + d), splat(most)), splat(-most)));
    }
}

void multiply(Step& s, const Op& op, const Part& part, const Input& in, int rank) {
  const int per_head = s.c.head_dim / kRows, layer = op.layer;
  s.products.multiply(part.w.matrix, in, part.from * per_head, part.to * per_head, rank, [&](int group, int t, f32x16 v) {
    if (!part.bias.empty()) v += load(part.bias.data() + group * kRows);
    store(s.head_row(part.first + group / per_head, t) + group % per_head * kRows, v);
  });
  const int which = part.tensor - PENTAD_Q, from = part.from * per_head, to = part.to * per_head;
  s.adapting.raise(which, layer, part.tensor, from, to, [&](int group, int t, f32x16 v) {
    float* p = s.head_row(part.first + group / per_head, t) + group % per_head * kRows;
    store(p, load(p) + v);
  });
  if (op.clip != 0.0f) clip(s, op.clip, part);
}

// Norms a head of a token. What a norm over all heads divides by is made of the squares of each.
void normalise(Step& s, const Op& op, const Part& part, int head, int token, float* x) {
  const int dim = s.c.head_dim;
  const float* scale = part.norm.data() + (has_scales_of_all(s, part) ? head * dim : 0);
  if (over_all(s, op, part)) {
    float sum = 0.0f;
    for (int h = 0; h < part.count; h++) sum += squares_of(s, part.first + h)[token];
    return scale_row(dim, rms_factor(sum, part.count * dim, op.eps), x, scale, x);
  }
  if (op.centred) layer_row(dim, op.eps, x, scale, nullptr, x);
  else rms_row(dim, op.eps, x, scale, x);
}

// The factor of queries at a position.
float grown(const Op& op, int position) {
  const float periods = static_cast<float>(position + op.offset) / static_cast<float>(op.period);
  return 1.0f + op.growth * (op.smooth ? std::log(std::max(periods, 1.0f)) : std::log1p(std::floor(periods)));
}

// Norms, turns and writes the heads of this thread.
void finish(Step& s, const Op& op, const Part& part) {
  const Rotation* rotation = s.cache.rotation(op.rotation);
  const bool key = part.first == s.c.heads, value = part.first > s.c.heads;
  for (int h = part.from; h < part.to; h++) {
    for (int t = 0; t < s.batch->tokens; t++) {
      float* x = s.head_row(part.first + h, t);
      const int position = s.batch->positions[t];
      if (!part.norm.empty() && !op.norm_last) normalise(s, op, part, h, t, x);
      if (!value && rotation) rotate_pairs(rotation->dim() / 2, rotation->at(position), x);
      if (!part.norm.empty() && op.norm_last) normalise(s, op, part, h, t, x);
      if (!key && !value && op.period) {
        const float factor = grown(op, position);
        for (int d = 0; d < s.c.head_dim; d += 16) store(x + d, load(x + d) * factor);
      }
      // Queries of dual chunks are turned on before they are spread.
      const bool turns_on = !key && rotation && rotation->length();
      if (!value && s.cache.coded() && !turns_on) rotate(x, s.c.head_dim);
    }
    if (key || value) write_head(s, op.layer, h, key, part.first + h);
  }
}

}  // namespace

// Whole heads: RoPE and the cache write follow in the same thread.
void qkv(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const Input in = s.normed(rank);
  const std::vector<float> no_norm;
  const int begin = first_head(s, rank), end = first_head(s, rank + 1);
  Part parts[3] = {{PENTAD_Q, l.q, l.q_bias, l.q_norm, 0, s.c.heads},
                   {PENTAD_K, l.k, l.k_bias, l.k_norm, s.c.heads, s.c.kv_heads},
                   {PENTAD_V, l.v, l.v_bias, no_norm, s.c.heads + s.c.kv_heads, s.c.kv_heads}};
  const bool all = over_all(s, op, parts[0]);
  adapt(s, op.layer, {PENTAD_Q, PENTAD_K, PENTAD_V}, in, rank);
  for (Part& part : parts) {
    part.from = std::max(begin, part.first) - part.first;
    part.to = std::max(part.from, std::min(end, part.first + part.count) - part.first);
    if (part.from >= part.to) continue;
    multiply(s, op, part, in, rank);
    if (!all) finish(s, op, part);
    for (int h = part.from; all && !part.norm.empty() && h < part.to; h++)
      for (int t = 0; t < s.batch->tokens; t++)
        squares_of(s, part.first + h)[t] = sum_of_squares(s.c.head_dim, s.head_row(part.first + h, t));
  }
  if (all) {
    s.team.barrier();
    for (const Part& part : parts) finish(s, op, part);
  }
  s.team.barrier();
}

}  // namespace pentad
