// Grouped products: each expert's matrices with the rows of the step that go to it, and no others.
#include "hidden_columns.h"

namespace pentad {

namespace {

Matrix part_of(const Matrix& all, int expert, int rows) {
  if (!all.data) return {};
  return {all.layout, rows, all.cols, all.data + all.group_bytes() * static_cast<size_t>(expert) * static_cast<size_t>(rows / kRows)};
}

const float* bias_of(const std::vector<float>& all, int expert, int size) {
  return all.empty() ? nullptr : all.data() + static_cast<size_t>(expert) * static_cast<size_t>(size);
}

// The experts that rows of this step go to, in order, and the shared ones behind them.
void gather_parts(Step& s, const LayerWeights& l, int rank) {
  const pentad_experts& e = l.experts;
  RoutingScratch& own = s.routing.own(rank);
  const int tokens = s.batch->tokens, width = s.c.width, all = tokens * e.per_token;
  const int32_t* chosen = s.routing.chosen_of(tokens, rank);
  std::fill_n(own.starts.begin(), e.count + 1, 0);
  for (int a = 0; a < all; a++) own.starts[static_cast<size_t>(chosen[a]) + 1]++;
  for (int x = 0; x < e.count; x++) own.starts[static_cast<size_t>(x) + 1] += own.starts[static_cast<size_t>(x)];
  own.parts.clear();
  for (int x = 0; x < e.count; x++) {
    const int first = own.starts[static_cast<size_t>(x)], count = own.starts[static_cast<size_t>(x) + 1] - first;
    if (count)
      own.parts.push_back({{part_of(l.experts_gate.matrix, x, e.width), part_of(l.experts_up.matrix, x, e.width),
                            bias_of(l.experts_gate_bias, x, e.width), bias_of(l.experts_up_bias, x, e.width)},
                           part_of(l.experts_down.matrix, x, width), bias_of(l.experts_down_bias, x, width),
                           own.order.data() + first, count, first, false, x});
  }
  for (int a = 0; a < all; a++) own.order[static_cast<size_t>(own.starts[static_cast<size_t>(chosen[a])]++)] = a;
  if (e.shared_width)
    own.parts.push_back({{l.gate.matrix, l.up.matrix, bias_of(l.gate_bias, 0, 0), bias_of(l.up_bias, 0, 0)},
                         l.down.matrix, bias_of(l.down_bias, 0, 0), nullptr, tokens, all, true, -1});
}

// Waits until the experts of this step are where they are to be read.
void page_in(Step& s, const Op& op, int rank) {
  Pager& p = s.pager;
  if (!rank) {
    p.experts.clear();
    p.rows.clear();
    for (const ExpertRows& part : s.routing.own(rank).parts)
      if (!part.shared) {
        p.experts.push_back(part.expert);
        p.rows.push_back(part.count);
      }
    p.call(p.context, op.layer, p.experts.data(), p.rows.data(), static_cast<int32_t>(p.experts.size()));
  }
  s.team.barrier();
}

void copy_row(const Quantized& from, int row, const Quantized& to, int at, float factor) {
  const size_t cols = static_cast<size_t>(from.cols), blocks = cols / kBlock;
  std::copy_n(from.codes + cols * row, cols, to.codes + cols * at);
  std::copy_n(from.sum + blocks * 2 * row, blocks * 2, to.sum + blocks * 2 * at);
  for (size_t b = 0; b < blocks; b++) {
    to.scale[blocks * at + b] = from.scale[blocks * row + b] * factor;
    to.total[blocks * at + b] = from.total[blocks * row + b] * factor;
  }
}

// The inputs of one expert, side by side.
Quantized inputs_of(Step& s, const pentad_experts& e, const ExpertRows& part, int rank) {
  Routing& r = s.routing;
  if (part.shared) return r.inputs.codes(s.c.width, 1);
  if (part.count == 1 && !e.weigh_inputs) return r.inputs.codes(s.c.width, 1, part.rows[0] / e.per_token);
  const Quantized from = r.inputs.codes(s.c.width, 1), to = r.own(rank).gathered.codes(s.c.width, 1);
  const float* weight = r.weight_of(s.batch->tokens, rank);
  for (int i = 0; i < part.count; i++)
    copy_row(from, part.rows[i] / e.per_token, to, i, e.weigh_inputs ? weight[part.rows[i]] : 1.0f);
  return to;
}

// What a block of an expert's columns costs: its weights, and each row. A row takes about a fourth of what
// reading the weights takes.
int64_t cost_of(const ExpertRows& part) { return 4 + part.count; }

}  // namespace

// Threads own whole blocks of 32 hidden columns, of about equal cost over all experts.
void experts_in(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  gather_parts(s, l, rank);
  if (s.pager.call) page_in(s, op, rank);
  const std::vector<ExpertRows>& parts = s.routing.own(rank).parts;
  int64_t all = 0;
  for (const ExpertRows& part : parts) {
    const HiddenWeights& h = part.hidden;
    all += h.up.rows / kBlock * cost_of(part);
    if (!rank) s.routing.bytes_read += h.up.bytes() + part.down.bytes() + (h.gate.data ? h.gate.bytes() : 0);
  }
  const int64_t begin = all * rank / s.team.active(), end = all * (rank + 1) / s.team.active();
  int64_t before = 0;
  for (const ExpertRows& part : parts) {
    const int64_t cost = cost_of(part), blocks = part.hidden.up.rows / kBlock;
    const auto place = [&](int64_t at) {
      return static_cast<int>(std::clamp<int64_t>((std::max<int64_t>(at - before, 0) + cost - 1) / cost, 0, blocks));
    };
    const int from = place(begin), to = place(end);
    if (from < to)
      hidden_columns(s, op.activation, part.hidden, inputs_of(s, l.experts, part, rank), part.count, from, to,
                     s.routing.hidden.codes(part.hidden.up.rows, 1, part.first), rank);
    before += blocks * cost;
  }
  s.team.barrier();
}

void experts_out(Step& s, const Op& op, int rank) {
  const pentad_experts& e = op.weights->experts;
  Routing& r = s.routing;
  const int tokens = s.batch->tokens;
  auto [begin, end] = s.share(s.c.width / kRows, rank);
  if (op.apart)
    for (int t = 0; t < tokens; t++) std::fill(s.part_row(t) + begin * kRows, s.part_row(t) + end * kRows, 0.0f);
  const float *weights = r.weight_of(tokens, rank), *shares = r.share_of(tokens, rank);
  const float scale = op.apart ? 1.0f : op.scale;
  for (const ExpertRows& part : r.own(rank).parts) {
    const Quantized in = r.hidden.codes(part.down.cols, 1, part.first);
    s.products.multiply(part.down, in, part.count, begin, end, rank, [&](int group, int i, f32x16 v) {
      const int assignment = part.shared ? i : part.rows[i], t = part.shared ? i : assignment / e.per_token;
      const float weight = part.shared ? shares[i] : e.weigh_inputs ? 1.0f : weights[assignment];
      float* p = (op.apart ? s.part_row(t) : s.row(t)) + group * kRows;
      store(p, load(p) + shifted(v, part.down_bias, group) * (weight * scale));
    });
  }
  s.team.barrier();
}

}  // namespace pentad
