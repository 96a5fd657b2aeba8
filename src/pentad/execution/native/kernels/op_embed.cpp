#include "step.h"

namespace pentad {

void embed(Step& s, const Op& op, int rank) {
  auto [begin, end] = s.share(s.batch->tokens, rank);
  const pentad_batch& b = *s.batch;
  const size_t width = static_cast<size_t>(s.c.width);
  for (int t = begin; t < end; t++) {
    const int line = b.embedding_rows ? b.embedding_rows[t] : -1;
    float* x = s.row(t);
    if (line >= 0) {
      std::copy_n(b.embeddings + static_cast<size_t>(line) * width, width, x);
      continue;
    }
    unpack_row(s.weights.embed.matrix, b.token_ids[t], x);
    for (int i = 0; op.scale != 1.0f && i < s.c.width; i += 16) store(x + i, load(x + i) * op.scale);
  }
  s.team.barrier();
}

}  // namespace pentad
