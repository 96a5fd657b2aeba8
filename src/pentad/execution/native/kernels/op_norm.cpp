#include "step.h"

namespace pentad {

void norm(Step& s, const Op& op, int rank) {
  float* normed = s.own(rank).normed.data();
  const int tokens = s.batch->tokens, blocks = s.c.width / kBlock;
  const Input out = s.normed(rank);
  if (tokens == 1) {
    out.put(normalised(op, s.c.width, s.x.data(), normed), 0, 0, blocks);
    return;
  }
  auto [begin, end] = s.share(tokens, rank);
  for (int t = begin; t < end; t++) out.put(normalised(op, s.c.width, s.row(t), normed), t, 0, blocks);
  s.team.barrier();
}

}  // namespace pentad
