#include "step.h"

namespace pentad {

void norm(Step& s, const Op& op, int rank) {
  float* normed = s.own(rank).normed.data();
  const int tokens = s.batch->tokens, blocks = s.c.width / kBlock;
  const Input out = s.normed(rank);
  if (tokens == 1) {
    norm_row(s.c.width, s.c.eps, s.x.data(), *op.norm, normed);
    out.put(normed, 0, 0, blocks);
    return;
  }
  auto [begin, end] = s.share(tokens, rank);
  for (int t = begin; t < end; t++) {
    norm_row(s.c.width, s.c.eps, s.row(t), *op.norm, normed);
    out.put(normed, t, 0, blocks);
  }
  s.team.barrier();
}

}  // namespace pentad
