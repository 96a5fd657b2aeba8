#include "step.h"

namespace pentad {

void embed(Step& s, const Op&, int rank) {
  auto [begin, end] = s.share(s.batch->tokens, rank);
  const pentad_batch& b = *s.batch;
  const size_t width = static_cast<size_t>(s.c.width);
  for (int t = begin; t < end; t++) {
    const int line = b.embedding_rows ? b.embedding_rows[t] : -1;
    if (line < 0)
      unpack_row(s.weights.embed.matrix, b.token_ids[t], s.row(t));
    else
      std::copy_n(b.embeddings + static_cast<size_t>(line) * width, width, s.row(t));
  }
  s.team.barrier();
}

}  // namespace pentad
