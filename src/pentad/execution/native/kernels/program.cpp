// The program of ops that a step runs, bound to a model's weights and held against them.
#include <iterator>
#include <stdexcept>

#include "step.h"

namespace pentad {

namespace {

struct OpKind {
  void (*run)(Step&, const Op&, int rank);
  Phase phase;
  bool of_layer;
};
// By pentad_op_kind. A norm counts with the op that reads it.
constexpr OpKind kOps[] = {{embed, kEmbed, false}, {norm, kPhases, true},       {qkv, kQkv, true},
                           {attend, kAttention, true}, {out, kOut, true},       {gate_up, kGateUp, true},
                           {down, kDown, true},    {head, kHead, false},        {positions, kEmbed, false},
                           {renorm, kPhases, true}, {add, kPhases, true},       {up, kGateUp, true},
                           {attn_gate, kQkv, true}, {route, kPhases, true},
                           {experts_in, kGateUp, true}, {experts_out, kDown, true},
                           {convolve, kQkv, true}, {recur, kAttention, true}, {gate_out, kAttention, true},
                           {latent, kQkv, true},   {latent_out, kAttention, true}};
constexpr int kKinds = static_cast<int>(std::size(kOps));
static_assert(kKinds == PENTAD_OP_LATENT_OUT + 1);

bool fits(const Weights& w, int rows, int cols) {
  return w.matrix.data && w.matrix.rows == pad(rows, kRows) && w.matrix.cols == cols;
}
bool fits(const std::vector<float>& v, int size) { return v.size() == static_cast<size_t>(size); }
// Vectors are kept in whole groups of rows.
bool fits_padded_or_none(const std::vector<float>& v, int size) { return v.empty() || fits(v, pad(size, kRows)); }
bool fits_or_none(const std::vector<float>& v, int size) { return v.empty() || fits(v, size); }

// Whether an op is one of a layer that mixes tokens so.
bool suits(int op, int mixer) {
  switch (op) {
    case PENTAD_OP_QKV: case PENTAD_OP_ATTN_GATE: return mixer == PENTAD_ATTENTION;
    case PENTAD_OP_ATTEND: return attends(mixer);
    case PENTAD_OP_LATENT: case PENTAD_OP_LATENT_OUT: return mixer == PENTAD_LATENT;
    case PENTAD_OP_CONVOLVE: case PENTAD_OP_GATE_OUT: return keeps_state(mixer);
    case PENTAD_OP_RECUR: return mixer == PENTAD_GATED_DELTA || mixer == PENTAD_MAMBA2;
    case PENTAD_OP_OUT: return mixer != PENTAD_NO_MIXER;
    default: return true;
  }
}

bool complete_norm(const Op& op, int width) {
  return !op.norm || (fits(op.norm->scale, width) && fits_or_none(op.norm->shift, width));
}

bool complete_qkv(const pentad_config& c, const LayerWeights& l) {
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  // Norms of each head, or over all of them.
  const bool all = fits(l.q_norm, q) && fits(l.k_norm, kv);
  if (!all && !(fits_or_none(l.q_norm, c.head_dim) && fits_or_none(l.k_norm, c.head_dim))) return false;
  return fits(l.q, q, c.width) && fits(l.k, kv, c.width) && fits(l.v, kv, c.width) && fits_or_none(l.q_bias, q) &&
         fits_or_none(l.k_bias, kv) && fits_or_none(l.v_bias, kv);
}

// What is computed in whole groups of 16 and 32.
bool complete_state(const pentad_config& c, const LayerWeights& l) {
  const pentad_mixer& m = l.mixer;
  const int inner = mixed_columns(m), keys = m.groups * m.key_dim;
  if (inner % kBlock || !fits(l.conv, m.conv * m.channels) || !fits_or_none(l.conv_bias, m.channels)) return false;
  if (m.kind == PENTAD_CONVOLUTION) return fits(l.conv_in, 3 * inner, c.width) && fits_or_none(l.conv_in_bias, 3 * inner);
  const bool delta = m.kind == PENTAD_GATED_DELTA;
  const int normed = delta ? m.value_dim : inner / m.norm_groups, heads = pad(m.heads, kRows);
  if (m.key_dim % 16 || m.value_dim % 16 || normed % kBlock || inner % m.norm_groups || m.channels != inner + 2 * keys) return false;
  if (delta ? !fits(l.rate, m.heads, c.width) : !fits(l.skip, heads)) return false;
  return fits(l.z, inner, c.width) && fits(l.v, inner, c.width) && fits(l.q, keys, c.width) && fits(l.k, keys, c.width) &&
         fits(l.step, m.heads, c.width) && fits(l.step_bias, heads) && fits(l.decay, heads) &&
         fits(l.inner_norm, delta ? m.value_dim : inner);
}

// Heads ask of a token by what is kept of it, so that is the size of all heads.
bool complete_latent(const pentad_config& c, const LayerWeights& l) {
  const pentad_mixer& m = l.mixer;
  const int turned = m.key_dim - m.value_dim;
  if (m.heads != c.heads || c.kv_heads != 1 || m.key_dim != c.head_dim || m.value_dim != c.shared_values || c.key_bits != 16)
    return false;
  if (turned <= 0 || m.plain_dim > m.key_dim || m.out_dim > m.key_dim || m.key_dim > kMostDim) return false;
  for (int size : {m.key_dim, m.value_dim, m.plain_dim, m.out_dim, m.query_rank})
    if (size % kBlock) return false;
  if (m.query_rank && !(fits(l.q_down, m.query_rank, c.width) && fits(l.q_norm, m.query_rank))) return false;
  return fits(l.q, m.heads * (m.plain_dim + turned), m.query_rank ? m.query_rank : c.width) &&
         fits(l.kv_down, m.key_dim, c.width) && fits(l.kv_norm, m.value_dim) &&
         fits(l.k_up, m.heads * m.value_dim, m.plain_dim) && fits(l.v_up, m.heads * m.out_dim, m.value_dim);
}

bool complete_inner(const pentad_config& c, const LayerWeights& l, bool gated) {
  const int hidden = l.up.matrix.rows;
  if (hidden % kBlock || hidden > pad(c.ffn_width, kBlock)) return false;
  if (gated && !(fits(l.gate, hidden, c.width) && fits_or_none(l.gate_bias, hidden))) return false;
  return fits(l.up, hidden, c.width) && fits_or_none(l.up_bias, hidden);
}

bool complete_experts(const pentad_config& c, const LayerWeights& l) {
  const pentad_experts& e = l.experts;
  const int inner = e.count * e.width;
  if (!e.count || e.width % kBlock || e.shared_width % kBlock) return false;
  if (!fits(l.router, pad(e.count * c.width, kRows)) || !fits_or_none(l.router_bias, pad(e.count, kRows))) return false;
  if (!fits(l.experts_up, inner, c.width) || !fits(l.experts_down, e.count * c.width, e.width)) return false;
  if (l.experts_gate.matrix.data && !fits(l.experts_gate, inner, c.width)) return false;
  if (!fits_or_none(l.experts_gate_bias, inner) || !fits_or_none(l.experts_up_bias, inner)) return false;
  if (!fits_or_none(l.experts_down_bias, e.count * c.width) || !fits_or_none(l.shared_gate, c.width)) return false;
  if (!e.shared_width) return true;
  if (l.gate.matrix.data && !fits(l.gate, e.shared_width, c.width)) return false;
  return fits(l.up, e.shared_width, c.width) && fits(l.down, c.width, e.shared_width);
}

}  // namespace

std::vector<Op> bind_program(const pentad_config& c, const ModelWeights& weights, const pentad_op* ops, int count) {
  std::vector<Op> program;
  for (int i = 0; i < count; i++) {
    const pentad_op& op = ops[i];
    if (op.kind < 0 || op.kind >= kKinds || op.layer < -1 || op.layer >= c.layers) throw std::invalid_argument("kind or layer");
    const OpKind& kind = kOps[op.kind];
    const bool of_layer = op.layer >= 0;
    if (of_layer != kind.of_layer && op.kind != PENTAD_OP_RENORM) throw std::invalid_argument("layer");
    const NormWeights* norm = op.tensor ? weights.norm(op.tensor, op.layer) : nullptr;
    if ((op.tensor && !norm) || (op.kind == PENTAD_OP_RENORM && !norm)) throw std::invalid_argument("norm");
    if (of_layer && !suits(op.kind, weights.layers[static_cast<size_t>(op.layer)].mixer.kind)) throw std::invalid_argument("mixer");
    if (op.rotation < -1 || op.rotation >= c.rotation_count || op.window < 0 || op.chunk < 0 || op.period < 0) throw std::invalid_argument("rotation, window, chunk or period");
    if (op.activation < 0 || op.activation > PENTAD_RELU_SQUARED || op.offset < 0) throw std::invalid_argument("activation or offset");
    program.push_back({op, kind.run, kind.phase, of_layer ? &weights.layers[static_cast<size_t>(op.layer)] : nullptr, norm});
  }
  return program;
}

bool complete(const pentad_config& c, const ModelWeights& weights, const Op& op) {
  if (!complete_norm(op, c.width)) return false;
  switch (op.kind) {
    case PENTAD_OP_EMBED: return fits(weights.embed, c.vocab, c.width);
    case PENTAD_OP_POSITIONS: {
      const Matrix& m = weights.positions.matrix;
      return m.data && m.cols == c.width && m.rows >= c.max_context + op.offset;
    }
    case PENTAD_OP_QKV: return complete_qkv(c, *op.weights);
    case PENTAD_OP_LATENT:
      return complete_latent(c, *op.weights);
    case PENTAD_OP_ATTN_GATE: return fits(op.weights->attn_gate, c.heads * c.head_dim, c.width);
    case PENTAD_OP_ATTEND:
      return fits_padded_or_none(op.weights->slopes, c.heads) && fits_padded_or_none(op.weights->sinks, c.heads);
    case PENTAD_OP_OUT:
      return fits(op.weights->o, c.width, mixed_columns(op.weights->mixer)) && fits_or_none(op.weights->o_bias, c.width);
    case PENTAD_OP_CONVOLVE: return complete_state(c, *op.weights);
    case PENTAD_OP_GATE_UP: return complete_inner(c, *op.weights, true);
    case PENTAD_OP_UP: return complete_inner(c, *op.weights, false);
    case PENTAD_OP_DOWN:
      return fits(op.weights->down, c.width, op.weights->up.matrix.rows) && fits_or_none(op.weights->down_bias, c.width);
    case PENTAD_OP_HEAD: {
      const Matrix& m = weights.head_matrix();
      return m.data && m.cols == c.width && m.rows == pad(c.vocab, kRows) && fits_or_none(weights.head_bias, m.rows);
    }
    case PENTAD_OP_ROUTE: return complete_experts(c, *op.weights);
    default: return true;
  }
}

}  // namespace pentad
