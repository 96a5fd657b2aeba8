#include "step.h"

namespace pentad {

void embed(Step& s, const Op&, int rank) {
  auto [begin, end] = s.share(s.batch->tokens, rank);
  for (int t = begin; t < end; t++) unpack_row(s.weights.embed.matrix, s.batch->token_ids[t], s.row(t));
  s.team.barrier();
}

}  // namespace pentad
