#include "weights.h"

namespace pentad {

int ModelWeights::set(int tensor, int layer, Format format, const uint8_t* data, int rows, int cols, bool interleaved) {
  if (std::vector<float>* v = vector_of(tensor, layer)) {
    if (format != Format::F32) return -1;
    v->assign(reinterpret_cast<const float*>(data), reinterpret_cast<const float*>(data) + cols);
    if (interleaved) *v = unpair(*v);
    return 0;
  }
  Weights& w = matrix_of(tensor, layer);
  auto memory = std::make_unique<Arena>(pentad_packed_bytes(static_cast<int32_t>(format), rows, cols) + 64);
  if (pack(format, data, rows, cols, interleaved, memory->data())) return -1;
  attach(tensor, layer, format, rows, cols, memory->data());
  w.memory = std::move(memory);
  return 0;
}

int ModelWeights::pack(Format format, const uint8_t* data, int rows, int cols, bool interleaved, uint8_t* out) {
  if (cols % kBlock) return -1;
  std::vector<int32_t> order(static_cast<size_t>(pad(rows, kRows)), -1);
  for (int r = 0; r < rows; r++) order[static_cast<size_t>(r)] = interleaved ? paired_row(r) : r;
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
  matrix_of(tensor, layer).matrix = {layout_of(format), pad(rows, kRows), cols, packed};
  return 0;
}

bool ModelWeights::complete() const {
  const size_t width = static_cast<size_t>(c_.width);
  if (!embed.matrix.data || final_norm.size() != width) return false;
  for (const LayerWeights& l : layers) {
    for (const Weights* w : l.matrices())
      if (!w->matrix.data) return false;
    for (const auto* norm : {&l.attn_norm, &l.ffn_norm})
      if (norm->size() != width) return false;
    for (const auto* norm : {&l.q_norm, &l.k_norm})
      if (!norm->empty() && norm->size() != static_cast<size_t>(c_.head_dim)) return false;
  }
  return true;
}

const std::vector<float>* ModelWeights::norm(int tensor, int layer) const {
  if (tensor == PENTAD_FINAL_NORM) return &final_norm;
  if (layer < 0 || layer >= c_.layers) return nullptr;
  const LayerWeights& l = layers[static_cast<size_t>(layer)];
  return tensor == PENTAD_ATTN_NORM ? &l.attn_norm : tensor == PENTAD_FFN_NORM ? &l.ffn_norm : nullptr;
}

size_t ModelWeights::bytes() const {
  size_t n = embed.matrix.bytes() + (head.matrix.data ? head.matrix.bytes() : 0);
  for (const LayerWeights& l : layers)
    for (const Weights* w : l.matrices()) n += w->matrix.bytes();
  return n;
}

// Where the row of a head lies in a file whose RoPE turns neighbours: here it turns i and i + rope_dim / 2.
int ModelWeights::paired_row(int r) const {
  const int head = r / c_.head_dim, i = r % c_.head_dim, half = c_.rope_dim / 2;
  if (i >= c_.rope_dim) return r;
  return head * c_.head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

std::vector<float> ModelWeights::unpair(const std::vector<float>& v) const {
  std::vector<float> out(v.size());
  for (size_t r = 0; r < v.size(); r++) out[r] = v[static_cast<size_t>(paired_row(static_cast<int>(r)))];
  return out;
}

Weights& ModelWeights::matrix_of(int tensor, int layer) {
  if (tensor == PENTAD_EMBED) return embed;
  if (tensor == PENTAD_HEAD) return head;
  LayerWeights& l = layers.at(static_cast<size_t>(layer));
  switch (tensor) {
    case PENTAD_Q: return l.q;
    case PENTAD_K: return l.k;
    case PENTAD_V: return l.v;
    case PENTAD_O: return l.o;
    case PENTAD_GATE: return l.gate;
    case PENTAD_UP: return l.up;
    default: return l.down;
  }
}

std::vector<float>* ModelWeights::vector_of(int tensor, int layer) {
  if (tensor == PENTAD_FINAL_NORM) return &final_norm;
  if (layer < 0) return nullptr;
  LayerWeights& l = layers.at(static_cast<size_t>(layer));
  switch (tensor) {
    case PENTAD_ATTN_NORM: return &l.attn_norm;
    case PENTAD_FFN_NORM: return &l.ffn_norm;
    case PENTAD_Q_BIAS: return &l.q_bias;
    case PENTAD_K_BIAS: return &l.k_bias;
    case PENTAD_V_BIAS: return &l.v_bias;
    case PENTAD_Q_NORM: return &l.q_norm;
    case PENTAD_K_NORM: return &l.k_norm;
    default: return nullptr;
  }
}

}  // namespace pentad
