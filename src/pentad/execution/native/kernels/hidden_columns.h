// The hidden columns of a feed-forward, block by block.
#pragma once
#include "step.h"

namespace pentad {

// 16 values of a token and the bias of their rows, if there is one.
PENTAD_INLINE f32x16 shifted(f32x16 v, const float* bias, int group) { return bias ? v + load(bias + group * kRows) : v; }

// Columns [32 from, 32 to) of the first `count` rows of `in`, quantized to the rows of `out`.
void hidden_columns(Step& s, int activation, const HiddenWeights& w, const Quantized& in, int count, int from, int to,
                    const Quantized& out, int rank);

}  // namespace pentad
