#include "step.h"

namespace pentad {

void add(Step& s, const Op& op, int rank) {
  float* normed = s.own(rank).normed.data();
  auto [begin, end] = s.share(s.batch->tokens, rank);
  for (int t = begin; t < end; t++) {
    float* x = s.row(t);
    const float* given = normalised(op, s.c.width, s.part_row(t), normed);
    for (int i = 0; i < s.c.width; i += 16) store(x + i, load(x + i) + load(given + i) * op.scale);
  }
  s.team.barrier();
}

}  // namespace pentad
