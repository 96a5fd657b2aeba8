#include "step.h"

namespace pentad {

void norm(Step& s, const std::vector<float>& weight, int rank) {
  float* normed = s.own(rank).normed.data();
  const int tokens = s.batch->tokens, blocks = s.c.width / kBlock;
  const Input out = s.normed(rank);
  if (tokens == 1) {
    norm_row(s.c, s.x.data(), weight, normed);
    out.put(normed, 0, 0, blocks);
    return;
  }
  auto [begin, end] = s.share(tokens, rank);
  for (int t = begin; t < end; t++) {
    norm_row(s.c, s.row(t), weight, normed);
    out.put(normed, t, 0, blocks);
  }
  s.team.barrier();
}

}  // namespace pentad
