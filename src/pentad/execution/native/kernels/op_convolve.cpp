// What a layer with a state makes of its input: products, the short convolution over some of them, steps of heads.
#include "step.h"

namespace pentad {

namespace {

// A matrix, the bias of its rows, and where its groups of 16 rows go.
struct Projected {
  const Matrix& matrix;
  const float* bias;
  Aligned<float>& to;
  int first;       // group of `to`
  bool convolved;
};

// A causal convolution of groups [from, to) of channels, in place, and the inputs that states keep of it. Each channel by
// itself over the tokens of each sequence: a sequence's company and its cuts change no bit.
template <typename Taken, typename Given>
void convolution(Step& s, const Op& op, int from, int to, Taken&& taken, Given&& given) {
  const pentad_batch& b = *s.batch;
  const LayerWeights& l = *op.weights;
  const int taps = l.mixer.conv, channels = l.mixer.channels;
  for (int group = from; group < to; group++) {
    const float* weights = l.conv.data() + group * 16;
    const f32x16 shift = l.conv_bias.empty() ? splat(0.0f) : load(l.conv_bias.data() + group * 16);
    f32x16 seen[kMostTaps];
    const auto keep = [&](int row) {
      float* kept = s.states.conv(op.layer, row) + group * 16;
      for (int i = 0; i + 1 < taps; i++) store(kept + i * channels, seen[i]);
    };
    int save = 0;
    for (int q = 0; q < b.sequences; q++) {
      const int row = b.state_rows[q];
      const bool fresh = b.starts[q] < b.starts[q + 1] && b.positions[b.starts[q]] == 0;
      const float* kept = s.states.conv(op.layer, row) + group * 16;
      for (int i = 0; i + 1 < taps; i++) seen[i] = fresh ? splat(0.0f) : load(kept + i * channels);
      each_part(b, q, save, [&](int begin, int end, int saved) {
        for (int t = begin; t < end; t++) {
          seen[taps - 1] = taken(group, t);
          f32x16 sum = shift;
          for (int i = 0; i < taps; i++) sum = muladd(seen[i], load(weights + i * channels), sum);
          given(group, t, sum);
          for (int i = 0; i + 1 < taps; i++) seen[i] = seen[i + 1];
        }
        if (saved >= 0) keep(saved);
      });
      keep(row);
    }
  }
}

// Groups [begin, end) of all parts, counted through.
template <typename Use>
void multiply(Step& s, const Projected* parts, int count, int begin, int end, int rank, Use&& behind) {
  const Input in = s.normed(rank);
  const int tokens = s.batch->tokens;
  for (int i = 0, before = 0; i < count; i++) {
    const Projected& part = parts[i];
    const int groups = part.matrix.rows / kRows;
    const int from = std::max(begin - before, 0), to = std::min(end - before, groups);
    before += groups;
    if (from >= to) continue;
    s.products.multiply(part.matrix, in, from, to, rank, [&](int group, int t, f32x16 v) {
      if (part.bias) v += load(part.bias + group * kRows);
      store(line(part.to, tokens, part.first + group, t), v);
    });
    behind(part, from, to);
  }
}

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

// Steps of heads [from, to) and what a state keeps of itself behind each.
void settle_steps(Step& s, const LayerWeights& l, int from, int to) {
  const int tokens = s.batch->tokens;
  const pentad_mixer& m = l.mixer;
  for (int h = from; h < std::min(to, m.heads); h++) {
    const float speed = -std::exp(l.decay[static_cast<size_t>(h)]);
    for (int t = 0; t < tokens; t++) {
      float& step = column(s.recurrence.steps, tokens, h, t);
      step = softplus(step);
      if (m.kind == PENTAD_MAMBA2) step = std::min(std::max(step, m.least_step), m.most_step);
      column(s.recurrence.decays, tokens, h, t) = std::exp(speed * step);
    }
  }
}

// b, c and x of a short convolution: what is given is c * conv(b * x).
void convolve_short(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  Recurrence& r = s.recurrence;
  const int tokens = s.batch->tokens, groups = l.mixer.channels / 16;
  const Projected all{l.conv_in.matrix, l.conv_in_bias.empty() ? nullptr : l.conv_in_bias.data(), r.mixed, 0, false};
  auto [from, to] = s.share(groups, rank);
  for (int part = 0; part < 3; part++)
    multiply(s, &all, 1, part * groups + from, part * groups + to, rank, [](const Projected&, int, int) {});
  convolution(
      s, op, from, to,
      [&](int group, int t) { return load(line(r.mixed, tokens, group, t)) * load(line(r.mixed, tokens, 2 * groups + group, t)); },
      [&](int group, int t, f32x16 v) { store(line(r.given, tokens, group, t), v * load(line(r.mixed, tokens, groups + group, t))); });
}

}  // namespace

// A thread convolves the channels that it has computed.
void convolve(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const pentad_mixer& m = l.mixer;
  Recurrence& r = s.recurrence;
  if (m.kind == PENTAD_CONVOLUTION) {
    convolve_short(s, op, rank);
    s.team.barrier();
    return;
  }
  const int tokens = s.batch->tokens, keys = m.groups * m.key_dim / 16, inner = m.heads * m.value_dim / 16;
  const bool delta = m.kind == PENTAD_GATED_DELTA;
  const Projected parts[] = {{l.z.matrix, nullptr, r.gates, 0, false},
                        {l.q.matrix, nullptr, r.mixed, delta ? 0 : inner + keys, true},
                        {l.k.matrix, nullptr, r.mixed, delta ? keys : inner, true},
                        {l.v.matrix, nullptr, r.mixed, delta ? 2 * keys : 0, true},
                        {l.step.matrix, l.step_bias.data(), r.steps, 0, false},
                        {l.rate.matrix, nullptr, r.rates, 0, false}};
  const int count = delta ? 6 : 5;
  int groups = 0;
  for (int i = 0; i < count; i++) groups += parts[i].matrix.rows / kRows;
  auto [begin, end] = s.share(groups, rank);
  multiply(s, parts, count, begin, end, rank, [&](const Projected& part, int from, int to) {
    if (part.convolved)
      convolution(
          s, op, part.first + from, part.first + to,
          [&](int group, int t) { return load(line(r.mixed, tokens, group, t)); },
          [&](int group, int t, f32x16 v) { store(line(r.mixed, tokens, group, t), silu(v)); });
    else if (&part.to == &r.steps) settle_steps(s, l, from * 16, to * 16);
    else if (&part.to == &r.rates)
      for (int group = from; group < to; group++)
        for (int t = 0; t < tokens; t++) {
          float* rate = line(r.rates, tokens, group, t);
          store(rate, 1.0f / (1.0f + vexp(-load(rate))));
        }
  });
  s.team.barrier();
}

}  // namespace pentad
