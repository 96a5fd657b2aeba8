#include "activations.h"
#include "step.h"

namespace pentad {

namespace {

f32x16 shape(f32x16 v, const std::vector<float>& bias, int group, const Op& op) {
  if (!bias.empty()) v += load(bias.data() + group * kRows);
  v = v * op.scale;
  return op.cap != 0.0f ? vtanh(v * (1.0f / op.cap)) * op.cap : v;
}

// Logits of the rows that are asked for, and the best token of each.
void logits(Step& s, const Op& op, int rank) {
  const pentad_batch& b = *s.batch;
  const Quantized in = s.inputs.codes(s.c.width, s.products.panel(b.rows));
  auto [from, to] = s.share(b.rows, rank);
  for (int r = from; r < to; r++) {
    float* row = s.own(rank).normed.data();
    quantize(normalised(op, s.c.width, s.row(b.logit_rows[r]), row), in, r, 0, s.c.width / kBlock);
  }
  s.team.barrier();
  const Matrix& m = s.weights.head_matrix();
  auto [begin, end] = s.share(m.rows / kRows, rank);
  const std::vector<float>& bias = s.weights.head_bias;
  const bool shaped = !bias.empty() || op.scale != 1.0f || op.cap != 0.0f;
  Best* best = b.argmax ? s.best.data() + static_cast<size_t>(rank) * b.rows : nullptr;
  s.products.multiply(m, in, b.rows, begin, end, rank, [&](int group, int r, f32x16 v) {
    if (shaped) v = shape(v, bias, group, op);
    const int token = group * kRows, live = std::min(kRows, s.c.vocab - token);
    const int line = s.draws ? s.draws->lines[r] : b.logits ? r : -1;
    if (line >= 0) {
      float* out = (s.draws ? s.kept.data() : b.logits) + static_cast<size_t>(line) * s.c.vocab + token;
      if (live == kRows) store(out, v);
      else for (int i = 0; i < live; i++) out[i] = v[i];
    }
    if (best) {
      if (live < kRows) for (int i = live; i < kRows; i++) set_lane(v, i, -INFINITY);
      const float top = hmax(v);
      if (top > best[r].value)
        for (int i = 0; i < kRows; i++)
          if (v[i] == top) {
            best[r] = {top, token + i};
            break;
          }
    }
  });
}

void draw(Step& s, int rank) {
  s.team.barrier();
  auto [begin, end] = s.share(s.draws->count, rank);
  for (int i = begin; i < end; i++)
    s.draws->drawn[i] = s.own(rank).sampler.draw(s.kept.data() + static_cast<size_t>(i) * static_cast<size_t>(s.c.vocab),
                                                 s.c.vocab, s.draws->rows[i], *s.draws);
}

}  // namespace

void head(Step& s, const Op& op, int rank) {
  if (s.batch->rows) logits(s, op, rank);
  if (s.draws) draw(s, rank);
}

}  // namespace pentad
