#include "step.h"

namespace pentad {

// The product of an input, added to the residual stream.
static void add_product(Step& s, const Matrix& m, const Input& x, int rank) {
  auto [begin, end] = s.share(m.rows / kRows, rank);
  s.products.multiply(m, x, begin, end, rank, [&](int group, int t, f32x16 v) {
    float* p = s.row(t) + group * kRows;
    store(p, load(p) + v);
  });
  s.team.barrier();
}

void out(Step& s, const Op& op, int rank) {
  const Matrix& m = op.weights->o.matrix;
  add_product(s, m, s.input(s.q_dim), rank);
}

void down(Step& s, const Op& op, int rank) {
  const Matrix& m = op.weights->down.matrix;
  add_product(s, m, s.hidden_input(m.cols), rank);
}

}  // namespace pentad
