// The router: which experts each token goes to. In float, since near-ties decide what is computed.
#include <cmath>

#include "step.h"

namespace pentad {

namespace {

// Scores of up to kRowsRouted rows with the experts [from, to). A row's are the same in any company.
template <int kCount>
void score_rows(const float* rows, int width, const float* router, int from, int to, float* scores, int stride) {
  for (int e = from; e < to; e++) {
    const float* w = router + static_cast<size_t>(e) * static_cast<size_t>(width);
    f32x16 sum[kCount];
    for (int t = 0; t < kCount; t++) sum[t] = splat(0.0f);
    for (int i = 0; i < width; i += 16) {
      const f32x16 weight = load(w + i);
      for (int t = 0; t < kCount; t++) sum[t] = muladd(load(rows + static_cast<size_t>(t) * width + i), weight, sum[t]);
    }
    for (int t = 0; t < kCount; t++) scores[static_cast<size_t>(t) * stride + e] = hsum(sum[t]);
  }
}

void score(const float* rows, int count, int width, const float* router, int from, int to, float* scores, int stride) {
  switch (count) {
    case 1: return score_rows<1>(rows, width, router, from, to, scores, stride);
    case 2: return score_rows<2>(rows, width, router, from, to, scores, stride);
    case 3: return score_rows<3>(rows, width, router, from, to, scores, stride);
    default: return score_rows<4>(rows, width, router, from, to, scores, stride);
  }
}

void softmax(float* x, int count) {
  float top = x[0], sum = 0;
  for (int i = 1; i < count; i++) top = std::max(top, x[i]);
  for (int i = 0; i < count; i++) sum += x[i] = std::exp(x[i] - top);
  for (int i = 0; i < count; i++) x[i] /= sum;
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// The place of the largest number; of equal ones the first.
int best_of(const float* x, int count) {
  int best = 0;
  for (int i = 1; i < count; i++)
    if (x[i] > x[best]) best = i;
  return best;
}

// Puts minus infinity in the place of experts whose group is not chosen; `marks` is [groups].
void keep_groups(const pentad_experts& e, float* ranked, float* marks) {
  const int size = e.count / e.groups;
  for (int group = 0; group < e.groups; group++) {
    float first = -INFINITY, second = -INFINITY;
    for (int i = group * size; i < (group + 1) * size; i++) {
      if (ranked[i] > first) second = first, first = ranked[i];
      else second = std::max(second, ranked[i]);
    }
    marks[group] = e.scores == PENTAD_SIGMOID && size > 1 ? first + second : first;
  }
  for (int chosen = 0; chosen < e.chosen_groups; chosen++) marks[best_of(marks, e.groups)] = -INFINITY;
  for (int group = 0; group < e.groups; group++)
    if (marks[group] != -INFINITY) std::fill_n(ranked + group * size, size, -INFINITY);
}

// The best expert, whose weight is its share in a softmax over those whose scores nearly equal its own, then the same
// without it.
void choose_one_by_one(const pentad_experts& e, const float* scores, float* ranked, int32_t* chosen, float* weight) {
  std::copy_n(scores, e.count, ranked);
  for (int k = 0; k < e.per_token; k++) {
    const int best = best_of(ranked, e.count);
    const float top = ranked[best];
    float sum = 0;
    for (int i = 0; i < e.count; i++)
      if (!((top - scores[i]) / std::max(std::abs(scores[i]), top) > e.rivals_within)) sum += std::exp(ranked[i] - top);
    chosen[k] = best;
    weight[k] = e.weight_scale / sum;
    ranked[best] = -INFINITY;
  }
}

// A token's experts and weights; `scores` are used up.
void choose(const LayerWeights& l, float* scores, float* ranked, float* marks, int32_t* chosen, float* weight) {
  const pentad_experts& e = l.experts;
  const float* bias = l.router_bias.empty() ? nullptr : l.router_bias.data();
  if (bias && !e.choice_bias)
    for (int i = 0; i < e.count; i++) scores[i] += bias[i];
  if (e.scores == PENTAD_ONE_BY_ONE) return choose_one_by_one(e, scores, ranked, chosen, weight);
  if (e.scores == PENTAD_SOFTMAX) softmax(scores, e.count);
  if (e.scores == PENTAD_SIGMOID)
    for (int i = 0; i < e.count; i++) scores[i] = sigmoid(scores[i]);
  for (int i = 0; i < e.count; i++) ranked[i] = bias && e.choice_bias ? scores[i] + bias[i] : scores[i];
  if (e.groups > 1) keep_groups(e, ranked, marks);
  float sum = 0;
  for (int k = 0; k < e.per_token; k++) {
    chosen[k] = best_of(ranked, e.count);
    ranked[chosen[k]] = -INFINITY;
    weight[k] = scores[chosen[k]];
  }
  if (e.scores == PENTAD_SOFTMAX_CHOSEN) softmax(weight, e.per_token);
  for (int k = 0; k < e.per_token; k++) sum += weight[k];
  const float factor = e.weight_scale / (e.normalised ? sum : 1.0f);
  for (int k = 0; k < e.per_token; k++) weight[k] *= factor;
}

// The weight of the shared experts for a row.
float share_of_row(const LayerWeights& l, const float* row, int width) {
  if (l.shared_gate.empty()) return 1.0f;
  f32x16 sum = splat(0.0f);
  for (int i = 0; i < width; i += 16) sum = muladd(load(row + i), load(l.shared_gate.data() + i), sum);
  return sigmoid(hsum(sum));
}

}  // namespace

void guess(Step& s, const Op& op, int32_t* chosen) {
  const LayerWeights& l = *op.weights;
  const size_t count = static_cast<size_t>(l.experts.count), width = static_cast<size_t>(s.c.width);
  std::vector<float> row(width), scores(count), ranked(count), marks(count), weight(count);
  for (int t = 0; t < s.batch->tokens; t++) {
    const float* normed = normalised(op, s.c.width, s.row(t), row.data());
    score(normed, 1, s.c.width, l.router.data(), 0, l.experts.count, scores.data(), l.experts.count);
    choose(l, scores.data(), ranked.data(), marks.data(), chosen + static_cast<size_t>(t) * l.experts.per_token, weight.data());
  }
}

void route(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const pentad_experts& e = l.experts;
  Routing& r = s.routing;
  RoutingScratch& own = r.own(rank);
  const int tokens = s.batch->tokens, width = s.c.width, blocks = width / kBlock;
  const Quantized in = r.inputs.codes(width, 1);
  const bool few = Routing::few(tokens);
  // Of few tokens, every thread norms all rows and scores a share of the experts.
  auto [begin, end] = few ? std::pair{0, tokens} : s.share(tokens, rank);
  auto [from, to] = few ? s.share(e.count, rank) : std::pair{0, e.count};
  for (int t = begin; t < end; t += kRowsRouted) {
    const int count = std::min(kRowsRouted, end - t);
    float* scores = r.scores.data() + static_cast<size_t>(t) * e.count;
    for (int i = 0; i < count; i++) {
      float* row = own.rows.data() + static_cast<size_t>(i) * width;
      const float* normed = normalised(op, width, s.row(t + i), row);
      if (normed != row) std::copy_n(normed, width, row);
      if (!few || i % s.team.active() == rank) quantize(row, in, t + i, 0, blocks);
      (few ? own.share.data() : r.share.data() + t)[i] = share_of_row(l, row, width);
    }
    score(own.rows.data(), count, width, l.router.data(), from, to, scores, e.count);
    if (few) s.team.barrier();
    for (int i = 0; i < count; i++) {
      const size_t at = static_cast<size_t>(few ? i : t + i) * e.per_token;
      float* own_scores = scores + static_cast<size_t>(i) * e.count;
      if (few) {  // the others read them too
        std::copy_n(own_scores, e.count, own.scores.data());
        own_scores = own.scores.data();
      }
      choose(l, own_scores, own.ranked.data(), own.marks.data(), (few ? own.chosen : r.chosen).data() + at, (few ? own.weight : r.weight).data() + at);
    }
  }
  if (!few) s.team.barrier();
}

}  // namespace pentad
