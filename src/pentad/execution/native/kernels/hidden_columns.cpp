#include "hidden_columns.h"

#include "activations.h"

namespace pentad {

// Products come first and their activation after them: it is then one loop over a block, for one kind.
void hidden_columns(Step& s, int activation, const HiddenWeights& w, const Quantized& in, int count, int from, int to,
                    const Quantized& out, int rank) {
  float* values = s.own(rank).hidden.data();
  float* up = w.gate.data ? values + static_cast<size_t>(count) * kBlock : nullptr;
  for (int block = from; block < to; block++) {
    const auto columns = [&](const Matrix& m, float* to) {
      s.products.multiply(m, in, count, block * 2, block * 2 + 2, rank, [&](int group, int i, f32x16 v) PENTAD_LAMBDA {
        store(to + i * kBlock + (group & 1) * kRows, v);
      });
    };
    const auto adapted = [&](int which, int tensor, float* to) {
      if (w.layer < 0) return;
      s.adapting.raise(which, w.layer, tensor, block * 2, block * 2 + 2, [&](int group, int t, f32x16 v) {
        float* p = to + s.split.place[static_cast<size_t>(t)] * kBlock + (group & 1) * kRows;
        store(p, load(p) + v);
      });
    };
    if (up) columns(w.gate, values), adapted(0, PENTAD_GATE, values);
    columns(w.up, up ? up : values), adapted(up ? 1 : 0, PENTAD_UP, up ? up : values);
    const auto shift = [&](const float* bias) { return bias ? bias + block * kBlock : nullptr; };
    const float* bias = shift(up ? w.gate_bias : w.up_bias);
    with_activation(activation, [&]<int kKind>() {
      activate_rows<kKind>(values, bias, up, shift(w.up_bias), count, kBlock);
    });
    for (int i = 0; i < count; i++) quantize(values + i * kBlock, out, i, block, 1);
  }
}

}  // namespace pentad
