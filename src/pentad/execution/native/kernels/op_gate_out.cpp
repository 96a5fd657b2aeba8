#include "step.h"

namespace pentad {

namespace {

// Columns [first, first + size) of what a recurrence gives a token, gated and normed, in `row`.
void gated_row(Step& s, const LayerWeights& l, int token, int first, int size, float* row) {
  const pentad_mixer& m = l.mixer;
  Recurrence& r = s.recurrence;
  const int tokens = s.batch->tokens;
  const bool delta = m.kind == PENTAD_GATED_DELTA;
  for (int d = 0; d < size; d += 16) {
    const int group = (first + d) / 16;
    f32x16 x = load(line(r.given, tokens, group, token));
    if (!delta) {
      x = muladd(load(line(r.mixed, tokens, group, token)), splat(l.skip[static_cast<size_t>((first + d) / m.value_dim)]), x);
      x = x * silu(load(line(r.gates, tokens, group, token)));
    }
    store(row + d, x);
  }
  const float* scale = l.inner_norm.data() + (delta ? 0 : first);
  scale_row(size, rms_factor(sum_of_squares(size, row), size, m.eps), row, scale, row);
  for (int d = 0; d < size && delta; d += 16)
    store(row + d, load(row + d) * silu(load(line(r.gates, tokens, (first + d) / 16, token))));
}

}  // namespace

// What is normed together is computed together.
void gate_out(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const pentad_mixer& m = l.mixer;
  const int columns = mixed_columns(m), tokens = s.batch->tokens;
  const bool plain = m.kind == PENTAD_CONVOLUTION;
  const int size = plain ? kBlock : m.kind == PENTAD_GATED_DELTA ? m.value_dim : columns / m.norm_groups;
  const int parts = columns / size;
  const Input next = s.input(columns);
  float* row = s.recurrence.scratch[static_cast<size_t>(rank)].row.data();
  auto [begin, end] = s.share(tokens * parts, rank);
  for (int unit = begin; unit < end; unit++) {
    const int token = unit / parts, first = unit % parts * size;
    if (plain)
      for (int d = 0; d < size; d += 16) store(row + d, load(line(s.recurrence.given, tokens, (first + d) / 16, token)));
    else
      gated_row(s, l, token, first, size, row);
    next.put(row, token, first / kBlock, size / kBlock);
  }
  s.team.barrier();
}

}  // namespace pentad
