#include "weights.h"

namespace pentad {

namespace {

template <typename T>
struct Named {
  int tensor;
  T LayerWeights::*part;
};
constexpr Named<Weights> kMatrices[] = {
    {PENTAD_Q, &LayerWeights::q},       {PENTAD_K, &LayerWeights::k},   {PENTAD_V, &LayerWeights::v},
    {PENTAD_O, &LayerWeights::o},       {PENTAD_GATE, &LayerWeights::gate}, {PENTAD_UP, &LayerWeights::up},
    {PENTAD_DOWN, &LayerWeights::down}, {PENTAD_ATTN_GATE, &LayerWeights::attn_gate},
    {PENTAD_EXPERTS_GATE, &LayerWeights::experts_gate}, {PENTAD_EXPERTS_UP, &LayerWeights::experts_up},
    {PENTAD_EXPERTS_DOWN, &LayerWeights::experts_down}, {PENTAD_Z, &LayerWeights::z},
    {PENTAD_STEP, &LayerWeights::step}, {PENTAD_RATE, &LayerWeights::rate}, {PENTAD_CONV_IN, &LayerWeights::conv_in},
    {PENTAD_Q_DOWN, &LayerWeights::q_down},       {PENTAD_KV_DOWN, &LayerWeights::kv_down},
    {PENTAD_K_UP, &LayerWeights::k_up},           {PENTAD_V_UP, &LayerWeights::v_up}};
constexpr Named<std::vector<float>> kVectors[] = {
    {PENTAD_Q_BIAS, &LayerWeights::q_bias},       {PENTAD_K_BIAS, &LayerWeights::k_bias},
    {PENTAD_V_BIAS, &LayerWeights::v_bias},       {PENTAD_O_BIAS, &LayerWeights::o_bias},
    {PENTAD_GATE_BIAS, &LayerWeights::gate_bias}, {PENTAD_UP_BIAS, &LayerWeights::up_bias},
    {PENTAD_DOWN_BIAS, &LayerWeights::down_bias}, {PENTAD_Q_NORM, &LayerWeights::q_norm},
    {PENTAD_K_NORM, &LayerWeights::k_norm},       {PENTAD_SINKS, &LayerWeights::sinks},
    {PENTAD_SLOPES, &LayerWeights::slopes},       {PENTAD_ROUTER, &LayerWeights::router},
    {PENTAD_ROUTER_BIAS, &LayerWeights::router_bias}, {PENTAD_SHARED_GATE, &LayerWeights::shared_gate},
    {PENTAD_EXPERTS_GATE_BIAS, &LayerWeights::experts_gate_bias},
    {PENTAD_EXPERTS_UP_BIAS, &LayerWeights::experts_up_bias},
    {PENTAD_EXPERTS_DOWN_BIAS, &LayerWeights::experts_down_bias},
    {PENTAD_CONV, &LayerWeights::conv},           {PENTAD_CONV_BIAS, &LayerWeights::conv_bias},
    {PENTAD_STEP_BIAS, &LayerWeights::step_bias}, {PENTAD_DECAY, &LayerWeights::decay},
    {PENTAD_SKIP, &LayerWeights::skip},           {PENTAD_INNER_NORM, &LayerWeights::inner_norm},
    {PENTAD_CONV_IN_BIAS, &LayerWeights::conv_in_bias}, {PENTAD_KV_NORM, &LayerWeights::kv_norm}};
// A norm of a layer, and the tensor that is its shift.
struct NamedNorm {
  int tensor, shift;
  NormWeights LayerWeights::*part;
};
constexpr NamedNorm kNorms[] = {
    {PENTAD_ATTN_NORM, PENTAD_ATTN_NORM_BIAS, &LayerWeights::attn_norm},
    {PENTAD_FFN_NORM, PENTAD_FFN_NORM_BIAS, &LayerWeights::ffn_norm},
    {PENTAD_ATTN_OUT_NORM, PENTAD_ATTN_OUT_NORM_BIAS, &LayerWeights::attn_out_norm},
    {PENTAD_FFN_OUT_NORM, PENTAD_FFN_OUT_NORM_BIAS, &LayerWeights::ffn_out_norm}};

}  // namespace

int ModelWeights::set(int tensor, int layer, Format format, const uint8_t* data, int rows, int cols, int paired) {
  if (std::vector<float>* v = vector_of(tensor, layer)) {
    if (format != Format::F32) return -1;
    v->assign(reinterpret_cast<const float*>(data), reinterpret_cast<const float*>(data) + cols);
    if (paired) *v = unpair(*v, paired);
    v->resize(static_cast<size_t>(pad(cols, kRows)));
    return 0;
  }
  Weights* w = matrix_of(tensor, layer);
  if (!w) return -1;
  auto memory = std::make_unique<Arena>(pentad_packed_bytes(static_cast<int32_t>(format), rows, cols) + 64);
  if (pack(format, data, rows, cols, paired, memory->data())) return -1;
  attach(tensor, layer, format, rows, cols, memory->data());
  w->memory = std::move(memory);
  return 0;
}

int ModelWeights::pack(Format format, const uint8_t* data, int rows, int cols, int paired, uint8_t* out) {
  if (cols % kBlock) return -1;
  std::vector<int32_t> order(static_cast<size_t>(pad(rows, kRows)), -1);
  for (int r = 0; r < rows; r++) order[static_cast<size_t>(r)] = paired ? paired_row(r, paired) : r;
  const int groups = pad(rows, kRows) / kRows;
  const size_t group_bytes = pentad_packed_bytes(static_cast<int32_t>(format), kRows, cols);
  team_.run([&](int rank) {
    auto [begin, end] = share_of(groups, rank, team_.active());
    pack_rows(format, data, cols, order.data() + static_cast<size_t>(begin) * kRows, (end - begin) * kRows,
              out + group_bytes * static_cast<size_t>(begin));
  });
  return 0;
}

int ModelWeights::attach(int tensor, int layer, Format format, int rows, int cols, const uint8_t* packed) {
  if (cols % kBlock) return -1;
  Weights* w = matrix_of(tensor, layer);
  if (!w) return -1;
  w->matrix = {layout_of(format), pad(rows, kRows), cols, packed};
  return 0;
}

const NormWeights* ModelWeights::norm(int tensor, int layer) const {
  if (layer < 0) return tensor == PENTAD_FINAL_NORM ? &final_norm : tensor == PENTAD_EMBED_NORM ? &embed_norm : nullptr;
  for (const NamedNorm& named : kNorms)
    if (named.tensor == tensor) return &(layers.at(static_cast<size_t>(layer)).*named.part);
  return nullptr;
}

size_t ModelWeights::bytes() const {
  size_t n = 0;
  const auto count = [&](const Weights& w) { n += w.matrix.data ? w.matrix.bytes() : 0; };
  for (const Weights* w : {&embed, &head, &positions}) count(*w);
  for (const LayerWeights& l : layers)
    for (const Weights* w : l.matrices()) count(*w);
  return n;
}

// Where the row of a head lies in a file whose RoPE turns neighbours: here it turns i and i + paired / 2.
int ModelWeights::paired_row(int r, int paired) const {
  const int head = r / c_.head_dim, i = r % c_.head_dim, half = paired / 2;
  if (i >= paired) return r;
  return head * c_.head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

std::vector<float> ModelWeights::unpair(const std::vector<float>& v, int paired) const {
  std::vector<float> out(v.size());
  for (size_t r = 0; r < v.size(); r++) out[r] = v[static_cast<size_t>(paired_row(static_cast<int>(r), paired))];
  return out;
}

Weights* ModelWeights::matrix_of(int tensor, int layer) {
  if (layer < 0)
    return tensor == PENTAD_EMBED ? &embed : tensor == PENTAD_HEAD ? &head : tensor == PENTAD_POSITIONS ? &positions : nullptr;
  for (const Named<Weights>& named : kMatrices)
    if (named.tensor == tensor) return &(layers.at(static_cast<size_t>(layer)).*named.part);
  return nullptr;
}

std::vector<float>* ModelWeights::vector_of(int tensor, int layer) {
  if (layer < 0) {
    switch (tensor) {
      case PENTAD_FINAL_NORM: return &final_norm.scale;
      case PENTAD_FINAL_NORM_BIAS: return &final_norm.shift;
      case PENTAD_EMBED_NORM: return &embed_norm.scale;
      case PENTAD_EMBED_NORM_BIAS: return &embed_norm.shift;
      case PENTAD_HEAD_BIAS: return &head_bias;
      default: return nullptr;
    }
  }
  LayerWeights& l = layers.at(static_cast<size_t>(layer));
  for (const Named<std::vector<float>>& named : kVectors)
    if (named.tensor == tensor) return &(l.*named.part);
  for (const NamedNorm& named : kNorms) {
    if (named.tensor == tensor) return &(l.*named.part).scale;
    if (named.shift == tensor) return &(l.*named.part).shift;
  }
  return nullptr;
}

}  // namespace pentad
