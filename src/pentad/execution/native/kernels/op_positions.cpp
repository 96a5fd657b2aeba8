#include "step.h"

namespace pentad {

void positions(Step& s, const Op& op, int rank) {
  float* learned = s.own(rank).normed.data();
  auto [begin, end] = s.share(s.batch->tokens, rank);
  for (int t = begin; t < end; t++) {
    float* x = s.row(t);
    unpack_row(s.weights.positions.matrix, s.batch->positions[t] + op.offset, learned);
    for (int i = 0; i < s.c.width; i += 16) store(x + i, load(x + i) + load(learned + i));
  }
  s.team.barrier();
}

}  // namespace pentad
