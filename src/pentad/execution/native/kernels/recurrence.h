// What the ops of a layer with a state hand over.
#pragma once
#include <algorithm>
#include <vector>

#include "native.h"
#include "simd.h"

namespace pentad {

constexpr int kStateTokens = 16;  // that are written to a state together

// What a thread prepares of the tokens that it writes to a state.
struct RecurrenceScratch {
  std::vector<float> queries, keys;  // [kStateTokens][key_dim]
  std::vector<float> row;            // of what is normed together
};

// Columns stand in groups of 16, each over all tokens: [columns / 16][tokens][16].
struct Recurrence {
  Aligned<float> gates;  // of what is given
  Aligned<float> mixed;  // what the convolution takes, then gives
  Aligned<float> given;  // what was read of the states
  Aligned<float> steps;  // of heads
  Aligned<float> decays, rates;
  std::vector<RecurrenceScratch> scratch;

  // Makes ready for layers that mix so.
  void take(const pentad_mixer& m) {
    const bool recurs = m.kind != PENTAD_CONVOLUTION;
    inner_ = std::max(inner_, recurs ? m.heads * m.value_dim : m.channels);
    mixed_ = std::max(mixed_, recurs ? m.channels : 3 * m.channels);
    if (!recurs) return;
    heads_ = std::max(heads_, (m.heads + 15) / 16 * 16);
    keys_ = std::max(keys_, m.key_dim);
  }
  void reserve(size_t tokens, int threads) {
    for (Aligned<float>* part : {&gates, &given}) part->resize(tokens * static_cast<size_t>(inner_));
    mixed.resize(tokens * static_cast<size_t>(mixed_));
    for (Aligned<float>* part : {&steps, &decays, &rates}) part->resize(tokens * static_cast<size_t>(heads_));
    scratch.resize(static_cast<size_t>(threads));
    for (RecurrenceScratch& own : scratch) {
      own.queries.resize(static_cast<size_t>(kStateTokens) * static_cast<size_t>(keys_));
      own.keys.resize(own.queries.size());
      own.row.resize(static_cast<size_t>(inner_));
    }
  }

 private:
  int inner_ = 0, mixed_ = 0, heads_ = 0, keys_ = 0;
};

// 16 columns of a token.
inline float* line(Aligned<float>& part, int tokens, int group, int token) {
  return part.data() + (static_cast<size_t>(group) * static_cast<size_t>(tokens) + static_cast<size_t>(token)) * 16;
}
// One column.
inline float& column(Aligned<float>& part, int tokens, int number, int token) {
  return line(part, tokens, number / 16, token)[number % 16];
}

}  // namespace pentad
