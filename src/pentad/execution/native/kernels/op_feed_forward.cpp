#include "activations.h"
#include "hidden_columns.h"

namespace pentad {

namespace {

const float* data_or_null(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

// A thread owns whole blocks of 32 hidden columns and quantizes them at once.
template <typename Rest>
void feed_forward(Step& s, const Op& op, const HiddenWeights& w, int rank, Rest&& in_bf16) {
  const Input in = s.normed(rank), out = s.hidden_input(w.up.rows);
  const int exact = static_cast<int>(s.split.exact.size());
  if (w.gate.data) adapt(s, op.layer, {PENTAD_GATE, PENTAD_UP}, in, rank);
  else adapt(s, op.layer, {PENTAD_UP}, in, rank);
  auto [from, to] = s.share(w.up.rows / kBlock, rank);
  if (exact) hidden_columns(s, op.activation, w, in.codes, exact, from, to, out.codes, rank);
  if (!s.split.wide.empty()) in_bf16(in, out.wide, 2 * from, 2 * to);
  s.team.barrier();
}

}  // namespace

// Gate and up go in step.
void gate_up(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const HiddenWeights w{l.gate.matrix, l.up.matrix, data_or_null(l.gate_bias), data_or_null(l.up_bias), op.layer};
  const int kind = op.activation;
  feed_forward(s, op, w, rank, [&](const Input& in, Wide out, int from, int to) {
    s.products.multiply_wide(w.gate, w.up, in, from, to, rank, [&](int group, int i, f32x16 g, f32x16 u) PENTAD_LAMBDA {
      out.put(activate(shifted(g, w.gate_bias, group), kind) * gated(shifted(u, w.up_bias, group), kind), i, group);
    });
  });
}

void up(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const HiddenWeights w{{}, l.up.matrix, nullptr, data_or_null(l.up_bias), op.layer};
  const int kind = op.activation;
  feed_forward(s, op, w, rank, [&](const Input& in, Wide out, int from, int to) {
    s.products.multiply_wide(w.up, in, from, to, rank, [&](int group, int i, f32x16 v) PENTAD_LAMBDA {
      out.put(activate(shifted(v, w.up_bias, group), kind), i, group);
    });
  });
}

}  // namespace pentad
