#include "step.h"

namespace pentad {

// The product of an input and its bias, added to the residual stream or left apart.
static void add_product(Step& s, const Op& op, int tensor, const Matrix& m, const std::vector<float>& bias,
                        const Input& x, int rank) {
  auto [begin, end] = s.share(m.rows / kRows, rank);
  const float* shift = bias.empty() ? nullptr : bias.data();
  const float scale = op.scale;
  const bool apart = op.apart != 0;
  adapt(s, op.layer, {tensor}, x, rank);
  s.products.multiply(m, x, begin, end, rank, [&](int group, int t, f32x16 v) PENTAD_LAMBDA {
    if (shift) v += load(shift + group * kRows);
    if (apart) return store(s.part_row(t) + group * kRows, v);
    float* p = s.row(t) + group * kRows;
    store(p, load(p) + v * scale);
  });
  s.adapting.raise(0, op.layer, tensor, begin, end, [&](int group, int t, f32x16 v) {
    float* p = (apart ? s.part_row(t) : s.row(t)) + group * kRows;
    store(p, load(p) + (apart ? v : v * scale));
  });
  s.team.barrier();
}

void out(Step& s, const Op& op, int rank) {
  const Matrix& m = op.weights->o.matrix;
  add_product(s, op, PENTAD_O, m, op.weights->o_bias, s.input(m.cols), rank);
}

void down(Step& s, const Op& op, int rank) {
  const Matrix& m = op.weights->down.matrix;
  add_product(s, op, PENTAD_DOWN, m, op.weights->down_bias, s.hidden_input(m.cols), rank);
}

}  // namespace pentad
