// No op of its own: what adapters add within the ops that multiply.
#include <algorithm>

#include "guard.h"
#include "step.h"

namespace pentad {

namespace {

constexpr int kSlices = 8;  // of a token's low-rank rows, so that few tokens occupy all threads

// One token's row of an input, from its codes.
void expand(const Quantized& x, int token, float* out) {
  const int blocks = x.cols / kBlock;
  for (int b = 0; b < blocks; b++, out += kBlock) {
    const size_t at = (static_cast<size_t>(token / x.panel) * blocks + b) * x.panel + token % x.panel;
    const int8_t* codes = x.codes + at * kBlock;
    store(out, to_float(load_i8(codes)) * x.scale[at]);
    store(out + kRows, to_float(load_i8(codes + kRows)) * x.scale[at]);
  }
}

float dot(const float* a, const float* b, int n) {
  f32x16 even = splat(0.0f), odd = splat(0.0f);
  for (int i = 0; i < n; i += kBlock) {
    even = muladd(load(a + i), load(b + i), even);
    odd = muladd(load(a + i + kRows), load(b + i + kRows), odd);
  }
  return hsum(even + odd);
}

}  // namespace

int Adapter::place_of(int tensor) {  // as in LayerWeights::matrices
  if (tensor >= PENTAD_Q && tensor <= PENTAD_O) return tensor - PENTAD_Q;
  return tensor >= PENTAD_GATE && tensor <= PENTAD_DOWN ? 4 + tensor - PENTAD_GATE : -1;
}

bool Adapter::set(int tensor, int layer, int rank, int rows, int cols, const float* down, const float* up) {
  const int place = place_of(tensor);
  if (place < 0 || layer < 0 || static_cast<size_t>(layer) >= layers_.size() || rank < 1) return false;
  const Matrix& m = weights_.layers[static_cast<size_t>(layer)].matrices()[static_cast<size_t>(place)]->matrix;
  if (!m.data || m.rows != pad(rows, kRows) || m.cols != cols) return false;
  LowRank pair{rank, {down, down + static_cast<size_t>(rank) * cols}, {}};
  pair.up.resize(static_cast<size_t>(m.rows) * rank);
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < rank; j++)
      pair.up[static_cast<size_t>((r / kRows * rank + j) * kRows + r % kRows)] = up[static_cast<size_t>(r) * rank + j];
  layers_[static_cast<size_t>(layer)][static_cast<size_t>(place)] = std::move(pair);
  rank_ = std::max(rank_, rank);
  return true;
}

const LowRank* Adapter::find(int layer, int tensor) const {
  const LowRank& pair = layers_[static_cast<size_t>(layer)][static_cast<size_t>(place_of(tensor))];
  return pair.rank ? &pair : nullptr;
}

void Adapting::give(const pentad_adapter* const* adapters, int count) {
  given_.clear();
  for (int i = 0; i < count; i++) given_.push_back(adapters[i] ? &adapters[i]->adapter : nullptr);
}

void Adapting::plan(const pentad_batch& b, int threads, int cols) {
  runs_.clear(), tokens_.clear(), of_token_.clear();
  stride_ = 0;
  for (int s = 0; s < b.sequences; s++) {
    if (!has(s)) continue;
    const Adapter* adapter = given_[static_cast<size_t>(s)];
    if (runs_.empty() || runs_.back().adapter != adapter) runs_.push_back({adapter, tokens_.size(), 0});
    for (int t = b.starts[s]; t < b.starts[s + 1]; t++) tokens_.push_back(t), of_token_.push_back(adapter);
    runs_.back().end = tokens_.size();
    stride_ = std::max(stride_, static_cast<size_t>(adapter->rank()));
  }
  if (!any()) return;
  const size_t need = 3 * tokens_.size() * stride_;
  if (low_.size() < need) low_.resize(need);
  rows_.resize(static_cast<size_t>(threads));
  for (std::vector<float>& row : rows_)
    if (row.size() < static_cast<size_t>(cols)) row.resize(static_cast<size_t>(cols));
}

void Adapting::lower(int layer, const int* tensors, int count, const Input& x, int rank, int members) {
  const auto [begin, end] = share_of(static_cast<int>(tokens_.size()) * kSlices, rank, members);
  float* row = rows_[static_cast<size_t>(rank)].data();
  int expanded = -1;
  for (int i = begin; i < end; i++) {
    const int at = i / kSlices, slice = i % kSlices;
    if (expanded != at) expand(x.codes, x.split->place[static_cast<size_t>(tokens_[static_cast<size_t>(at)])], row);
    expanded = at;
    for (int which = 0; which < count; which++) {
      const LowRank* pair = of_token_[static_cast<size_t>(at)]->find(layer, tensors[which]);
      if (!pair) continue;
      float* low = low_.data() + (static_cast<size_t>(which) * tokens_.size() + static_cast<size_t>(at)) * stride_;
      for (int j = pair->rank * slice / kSlices; j < pair->rank * (slice + 1) / kSlices; j++)
        low[j] = dot(pair->down.data() + static_cast<size_t>(j) * x.codes.cols, row, x.codes.cols);
    }
  }
}

void adapt(Step& s, int layer, std::initializer_list<int> tensors, const Input& x, int rank) {
  if (!s.adapting.any()) return;
  s.adapting.lower(layer, tensors.begin(), static_cast<int>(tensors.size()), x, rank, s.team.active());
  s.team.barrier();
}

}  // namespace pentad

extern "C" {

void pentad_adapter_destroy(pentad_adapter* a) { delete a; }
int pentad_adapter_set(pentad_adapter* a, int32_t tensor, int32_t layer, int32_t rank, int32_t rows, int32_t cols,
                       const float* down, const float* up) {
  return pentad::guarded(-1, [&] { return a->adapter.set(tensor, layer, rank, rows, cols, down, up) ? 0 : -1; });
}
}
