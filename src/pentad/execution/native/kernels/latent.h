// What the ops of a layer with latent attention hand over.
#pragma once
#include <algorithm>

#include "input_buffer.h"
#include "native.h"

namespace pentad {

struct Latent {
  Aligned<float> rows;  // [tokens][columns]: the vector that queries are made of, then what is kept of the token
  InputBuffer asked;    // that vector
  InputBuffer plain;    // [heads][tokens] of queries, the part that is not turned
  InputBuffer vectors;  // [heads][tokens] of what attention gives

  void take(const pentad_mixer& m) {
    columns_ = std::max(columns_, m.query_rank + m.key_dim);
    heads_ = std::max(heads_, m.heads);
    query_rank_ = std::max(query_rank_, m.query_rank);
    plain_ = std::max(plain_, m.plain_dim);
    rank_ = std::max(rank_, m.value_dim);
  }
  void reserve(size_t tokens, bool tiles) {
    const size_t rows_of_heads = tokens * static_cast<size_t>(heads_);
    rows.resize(tokens * static_cast<size_t>(columns_));
    asked.reserve(tokens, query_rank_, tiles);
    plain.reserve(rows_of_heads, plain_, false);
    vectors.reserve(rows_of_heads, rank_, false);
  }
  float* row(int token) { return rows.data() + static_cast<size_t>(token) * static_cast<size_t>(columns_); }

 private:
  int columns_ = 0, heads_ = 0, query_rank_ = 0, plain_ = 0, rank_ = 0;
};

}  // namespace pentad
