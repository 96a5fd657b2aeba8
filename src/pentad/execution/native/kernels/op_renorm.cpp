#include "step.h"

namespace pentad {

void renorm(Step& s, const Op& op, int rank) {
  auto [begin, end] = s.share(s.batch->tokens, rank);
  for (int t = begin; t < end; t++) normalised(op, s.c.width, s.row(t), s.row(t));
  s.team.barrier();
}

}  // namespace pentad
