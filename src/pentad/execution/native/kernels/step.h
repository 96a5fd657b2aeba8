// What the ops of a step share, and the ops: a step runs a list of them, each on all threads.
//
// An op has a file of its own, op_*.cpp. It reads what the ops in front of it left in Step, writes what those
// behind it read, and ends in a barrier where these read what other threads have written.
#pragma once
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

#include "adapters.h"
#include "attention.h"
#include "attention_plan.h"
#include "attention_tiles.h"
#include "cache.h"
#include "experts.h"
#include "latent.h"
#include "native.h"
#include "norms.h"
#include "products.h"
#include "recurrence.h"
#include "sampling.h"
#include "states.h"
#include "threads.h"
#include "weights.h"

namespace pentad {

struct Unpacked {  // what a thread has unpacked last in this layer
  int sequence = -1, head = -1;
  Pages pages;
  Aligned<uint16_t> room;
};

// What one thread needs for itself.
struct Scratch {
  std::vector<float> normed;      // [width]
  std::vector<float> hidden;      // [2][tokens][a block of the feed-forward's columns]
  std::vector<float> scores;      // of attention, without tiles
  std::vector<uint8_t> tail;      // a path of a tree, as pages
  Aligned<uint16_t> room;         // blocks of codes, unpacked
  std::vector<uint32_t> queries;  // [sections][kRowsAtOnce][head_dim / 2]
  std::vector<Gathered> sections;
  std::vector<float> masses;      // [sections][kRowsAtOnce] logarithms of sums of e^score; of dual chunks only
  std::vector<float> parts;       // [sections - 1][kRowsAtOnce][head_dim] what the sections behind the first give
  Unpacked unpacked;
  Sampler sampler;
#if PENTAD_TILES
  TileScratch tiles;
#endif
};

struct Best {
  float value;
  int32_t token;
};

struct Op;

// Who is told what a step is about to read; native.h.
struct Pager {
  pentad_pager call = nullptr;
  void* context = nullptr;
  std::vector<int32_t> experts, rows;  // of the layer that is told
};

struct Step {
  Step(const pentad_config& c, Team& team, Products& products, const ModelWeights& weights, KvCache& cache, States& states);

  const pentad_config& c;
  Team& team;
  Products& products;
  const ModelWeights& weights;
  KvCache& cache;
  States& states;
  const int q_dim, kv_dim, wide;   // wide: columns of the widest input but the feed-forward's
  const int score_stride;

  const pentad_batch* batch = nullptr;
  const pentad_draws* draws = nullptr;
  int capacity = 0;                // tokens
  Split split;
  AttentionPlan plan;
  Aligned<float> x;                // [tokens][width], the residual stream
  Aligned<float> part;             // likewise, what is yet to be added to it; only where an op leaves it apart
  Aligned<float> gates;            // [tokens][heads * head_dim], of what attention gives; only where an op makes them
  bool parts = false, gated = false, dual = false;  // whether the program has such ops, and dual chunks
  std::vector<float> squares;      // [heads and key/value heads][tokens] sums of squares, for norms over all heads
  Aligned<float> qkv;              // [heads and key/value heads twice][tokens][head_dim]
  Aligned<float> attended;         // [tokens][heads * head_dim]
  InputBuffer inputs;              // of every product but the last of the feed-forward
  InputBuffer hidden;              // of that
  Adapting adapting;               // who has which adapter
  Routing routing;                 // of the layer with experts that is computed
  Recurrence recurrence;           // of the layer with a state that is computed
  Latent latent;                   // of the layer with latent attention that is computed
  std::vector<Scratch> scratch;    // [threads]
  std::vector<float> kept;         // [draws][vocab], logits to draw from
  std::vector<Best> best;          // [threads][rows]
  Pager pager;

  // Takes what is to be known of the program, and the memory that it asks for.
  void take(const std::vector<Op>& program);
  // Makes room for steps of so many tokens.
  void reserve(int tokens);
  // Takes all memory that the step will need, and plans it. Nothing is allocated behind this, but by draw(),
  // which sees to it.
  void prepare(const pentad_batch& b, const pentad_draws* d);

  std::pair<int, int> share(int n, int rank) const { return share_of(n, rank, team.active()); }
  Scratch& own(int rank) { return scratch[static_cast<size_t>(rank)]; }
  float* row(int token) { return x.data() + static_cast<size_t>(token) * c.width; }
  float* part_row(int token) { return part.data() + static_cast<size_t>(token) * c.width; }
  // A token's part of a head: queries first, then keys, then values.
  float* head_row(int head, int token) {
    return qkv.data() + (static_cast<size_t>(head) * static_cast<size_t>(batch->tokens) + static_cast<size_t>(token)) * c.head_dim;
  }
  // What attention gives for a head of a token.
  float* given(int token, int head) {
    return attended.data() + static_cast<size_t>(token) * static_cast<size_t>(q_dim) + head * c.head_dim;
  }
  // The input of a product, of every token.
  Input input(int cols, int copy = 0) {
    const int exact = static_cast<int>(split.exact.size());
    return {.codes = inputs.codes(cols, products.panel(exact), copy), .wide = inputs.wide(cols), .split = &split};
  }
  // What norm() has left. The one token of a step is normalised by every thread for itself, into copy `rank`,
  // which costs less than a barrier.
  Input normed(int rank) { return input(c.width, batch->tokens == 1 ? rank : 0); }
  // The input of the feed-forward's last product, which must not overwrite what its first ones still read.
  Input hidden_input(int cols) {
    const int exact = static_cast<int>(split.exact.size());
    return {.codes = hidden.codes(cols, products.panel(exact)), .wide = hidden.wide(cols), .split = &split};
  }
};

// Where the time of a step goes; pentad_times counts by these.
enum Phase { kEmbed = 0, kQkv, kAttention, kOut, kGateUp, kDown, kHead, kPhases };

// What is wrong with a batch, or 0; see native.h.
int check_batch(const pentad_config& c, const pentad_batch& b);

// One op of the program, with what it works on.
struct Op : pentad_op {
  void (*run)(Step&, const Op&, int rank);
  Phase phase;                  // kPhases: what the op behind it counts
  const LayerWeights* weights;  // of the layer
  const NormWeights* norm;      // null: none
};

// The row `x`, normalised in `out`, or as it is where the op has no norm; `out` may be the row itself.
inline const float* normalised(const Op& op, int size, const float* x, float* out) {
  if (!op.norm) return x;
  const float* scale = op.norm->scale.data();
  const float* shift = op.norm->shift.empty() ? nullptr : op.norm->shift.data();
  if (op.centred) layer_row(size, op.eps, x, scale, shift, out);
  else rms_row(size, op.eps, x, scale, out);
  return out;
}

// Binds the ops of a program to a model's weights; throws std::invalid_argument for one that there is not.
std::vector<Op> bind_program(const pentad_config& c, const ModelWeights& weights, const pentad_op* ops, int count);
// Whether the model has every tensor that an op reads, in its size.
bool complete(const pentad_config& c, const ModelWeights& weights, const Op& op);

// Token embeddings into the residual stream.
void embed(Step& s, const Op& op, int rank);
// Learned positions, added to the residual stream.
void positions(Step& s, const Op& op, int rank);
// The residual stream, normalised where the op has a norm, into the inputs.
void norm(Step& s, const Op& op, int rank);
// Normalised inputs to queries, keys and values; RoPE, and keys and values to their slots.
void qkv(Step& s, const Op& op, int rank);
// Normalised inputs to the gates of what attention gives.
void attn_gate(Step& s, const Op& op, int rank);
// Normalised inputs to what latent attention keeps of tokens, written to their slots, and to what its heads ask of it.
void latent(Step& s, const Op& op, int rank);
// What latent attention has found, through the matrices of the heads' values, into the inputs.
void latent_out(Step& s, const Op& op, int rank);
// Queries with the slots that they see, into the inputs; of latent attention, into those of latent_out.
void attend(Step& s, const Op& op, int rank);
// The residual stream, normalised where it stands.
void renorm(Step& s, const Op& op, int rank);
// What was left apart, normalised, onto the residual stream.
void add(Step& s, const Op& op, int rank);
// Normalised inputs to what a layer with a state makes of them: gates, steps, and what its convolution gives.
void convolve(Step& s, const Op& op, int rank);
// What has been convolved, written to the matrices of the states and read from them.
void recur(Step& s, const Op& op, int rank);
// What was read, gated and normed, into the inputs.
void gate_out(Step& s, const Op& op, int rank);
// What a mixer has left, through its matrix, added to the residual stream.
void out(Step& s, const Op& op, int rank);
// Normalised inputs to the hidden columns of a gated feed-forward.
void gate_up(Step& s, const Op& op, int rank);
// ... and of one without a gate.
void up(Step& s, const Op& op, int rank);
// Hidden columns through their matrix, added to the residual stream.
void down(Step& s, const Op& op, int rank);
// The experts of every token and their weights, of the residual stream, normalised where the op has a norm; and
// that as the experts' inputs.
void route(Step& s, const Op& op, int rank);
// The experts that the residual stream would choose in the layer of such an op, [tokens][per_token]; one thread.
void guess(Step& s, const Op& route, int32_t* chosen);
// Inputs to the hidden columns of the experts that they go to, and of the shared ones.
void experts_in(Step& s, const Op& op, int rank);
// These through their matrices, weighed, added to the residual stream.
void experts_out(Step& s, const Op& op, int rank);
// What adapters make of the input of these products, which the products then take up with Adapting::raise. Not an op:
// every thread calls it within one. Ends in a barrier where anybody has an adapter, else does nothing.
void adapt(Step& s, int layer, std::initializer_list<int> tensors, const Input& x, int rank);
// The final norm and logits of the rows that are asked for, the best token of each, and draws.
void head(Step& s, const Op& op, int rank);

}  // namespace pentad
