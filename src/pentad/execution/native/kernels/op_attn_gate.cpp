#include "step.h"

namespace pentad {

void attn_gate(Step& s, const Op& op, int rank) {
  const Matrix& m = op.weights->attn_gate.matrix;
  auto [begin, end] = s.share(m.rows / kRows, rank);
  s.products.multiply(m, s.normed(rank), begin, end, rank, [&](int group, int t, f32x16 v) {
    store(s.gates.data() + static_cast<size_t>(t) * s.q_dim + group * kRows, 1.0f / (1.0f + vexp(-v)));
  });
  s.team.barrier();
}

}  // namespace pentad
