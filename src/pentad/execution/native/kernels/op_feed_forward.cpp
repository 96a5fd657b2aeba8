#include "activations.h"
#include "step.h"

namespace pentad {

namespace {

PENTAD_INLINE f32x16 shifted(f32x16 v, const std::vector<float>& bias, int group) {
  return bias.empty() ? v : v + load(bias.data() + group * kRows);
}

}  // namespace

// A thread owns whole blocks of 32 hidden columns and quantizes them at once; gate and up go in step.
void gate_up(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const Input in = s.normed(rank);
  const Matrix &gate = l.gate.matrix, &up = l.up.matrix;
  auto [from, to] = s.share(gate.rows / kBlock, rank);
  float* hidden = s.own(rank).hidden.data();
  const Input out = s.hidden_input(gate.rows);
  const int exact = static_cast<int>(s.split.exact.size()), kind = op.activation;
  for (int block = from; exact && block < to; block++) {
    s.products.multiply(gate, in.codes, exact, block * 2, block * 2 + 2, rank, [&](int group, int i, f32x16 v) {
      store(hidden + i * kBlock + (group & 1) * kRows, activate(shifted(v, l.gate_bias, group), kind));
    });
    s.products.multiply(up, in.codes, exact, block * 2, block * 2 + 2, rank, [&](int group, int i, f32x16 v) {
      float* p = hidden + i * kBlock + (group & 1) * kRows;
      store(p, load(p) * gated(shifted(v, l.up_bias, group), kind));
    });
    for (int i = 0; i < exact; i++) quantize(hidden + i * kBlock, out.codes, i, block, 1);
  }
  for (int group = 2 * from; !s.split.wide.empty() && group < 2 * to; group++)
    s.products.multiply_wide(gate, up, in, group, rank, [&](int i, f32x16 g, f32x16 u) {
      out.wide.put(activate(shifted(g, l.gate_bias, group), kind) * gated(shifted(u, l.up_bias, group), kind), i, group);
    });
  s.team.barrier();
}

void up(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const Input in = s.normed(rank);
  const Matrix& m = l.up.matrix;
  auto [from, to] = s.share(m.rows / kBlock, rank);
  float* hidden = s.own(rank).hidden.data();
  const Input out = s.hidden_input(m.rows);
  const int exact = static_cast<int>(s.split.exact.size()), kind = op.activation;
  for (int block = from; exact && block < to; block++) {
    s.products.multiply(m, in.codes, exact, block * 2, block * 2 + 2, rank, [&](int group, int i, f32x16 v) {
      store(hidden + i * kBlock + (group & 1) * kRows, activate(shifted(v, l.up_bias, group), kind));
    });
    for (int i = 0; i < exact; i++) quantize(hidden + i * kBlock, out.codes, i, block, 1);
  }
  s.products.multiply_wide(m, in, 2 * from, 2 * to, rank, [&](int group, int i, f32x16 v) PENTAD_LAMBDA {
    out.wide.put(activate(shifted(v, l.up_bias, group), kind), i, group);
  });
  s.team.barrier();
}

}  // namespace pentad
