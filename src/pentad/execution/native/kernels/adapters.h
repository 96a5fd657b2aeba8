// Low-rank adapters: what is added to the products of tokens that have one, y = W x + up (down x).
//
// x is read as the product itself reads it, in 8-bit codes. What a token gets depends on that token and its adapter
// alone, so it is the same in every batch and on any number of threads.
#pragma once
#include <array>
#include <utility>
#include <vector>

#include "native_adapters.h"
#include "products.h"
#include "weights.h"

namespace pentad {

struct LowRank {
  int rank = 0;             // 0: nothing is added
  std::vector<float> down;  // [rank][cols]
  std::vector<float> up;    // [rows / 16][rank][16]
};

class Adapter {
 public:
  explicit Adapter(const ModelWeights& weights) : weights_(weights), layers_(weights.layers.size()) {}
  bool set(int tensor, int layer, int rank, int rows, int cols, const float* down, const float* up);
  // Null: it adds nothing to that matrix.
  const LowRank* find(int layer, int tensor) const;
  int rank() const { return rank_; }  // the greatest

 private:
  static constexpr int kMatrices = 7;
  static int place_of(int tensor);

  const ModelWeights& weights_;
  std::vector<std::array<LowRank, kMatrices>> layers_;
  int rank_ = 0;
};

// Who has which adapter in a step, and what adapters have made of the input of the present op.
class Adapting {
 public:
  // See pentad_adapt.
  void give(const pentad_adapter* const* adapters, int count);
  bool has(int sequence) const { return static_cast<size_t>(sequence) < given_.size() && given_[static_cast<size_t>(sequence)]; }
  // Takes the memory that a step needs; `cols` of the widest input.
  void plan(const pentad_batch& b, int threads, int cols);
  bool any() const { return !tokens_.empty(); }

  // This member's share of down x, for up to three matrices with one input. A barrier must follow.
  void lower(int layer, const int* tensors, int count, const Input& x, int rank, int members);
  // What is added to the groups [begin, end) of the `which`-th of these: add(group, token, 16 values).
  template <typename Add>
  void raise(int which, int layer, int tensor, int begin, int end, Add&& add) const {
    for (const Run& run : runs_) {
      const LowRank* pair = run.adapter->find(layer, tensor);
      if (!pair) continue;
      const float* low = low_.data() + static_cast<size_t>(which) * tokens_.size() * stride_;
      for (int group = begin; group < end; group++) {
        const float* up = pair->up.data() + static_cast<size_t>(group * pair->rank) * kRows;
        size_t t = run.first;
        for (; t + 4 <= run.end; t += 4) raise_tokens<4>(*pair, up, low, group, t, add);
        for (; t < run.end; t++) raise_tokens<1>(*pair, up, low, group, t, add);
      }
    }
  }

 private:
  struct Run {  // tokens with one adapter, as places in tokens_
    const Adapter* adapter;
    size_t first, end;
  };

  template <int kTokens, typename Add>
  PENTAD_INLINE void raise_tokens(const LowRank& pair, const float* up, const float* low, int group, size_t t, Add&& add) const {
    f32x16 sum[kTokens];
    for (f32x16& one : sum) one = splat(0.0f);
    low += t * stride_;
    for (int j = 0; j < pair.rank; j++, up += kRows)
      for (size_t i = 0; i < kTokens; i++) sum[i] = muladd(load(up), splat(low[i * stride_ + static_cast<size_t>(j)]), sum[i]);
    for (size_t i = 0; i < kTokens; i++) add(group, tokens_[t + i], sum[i]);
  }

  std::vector<const Adapter*> given_;
  std::vector<Run> runs_;
  std::vector<int> tokens_;
  std::vector<const Adapter*> of_token_;  // like tokens_
  size_t stride_ = 0;                     // the greatest rank of the step
  std::vector<float> low_;                // [3][tokens_][stride_]
  std::vector<std::vector<float>> rows_;  // [threads][cols]
};

}  // namespace pentad

struct pentad_adapter {
  pentad::Adapter adapter;
};
