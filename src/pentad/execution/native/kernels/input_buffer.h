// Room for the inputs of products.
#pragma once
#include <vector>

#include "dot.h"
#include "memory.h"
#include "wide_tiles.h"

namespace pentad {

// Quantized and, where there are tiles, in bf16.
class InputBuffer {
 public:
  void reserve(size_t rows, int cols, bool tiles) {
    cols_ = static_cast<size_t>(cols);
    const size_t n = rows * cols_;
    codes_.resize(n);
    scale_.resize(n / 32);
    total_.resize(n / 32);
    sum_.resize(n / 16);
    if (tiles) values_.resize(n);
  }
  // The codes of so many rows, from row `row` on.
  Quantized codes(int cols, int panel, int row = 0) {
    const size_t c = static_cast<size_t>(row) * cols_;
    return {.cols = cols,
            .panel = panel,
            .codes = codes_.data() + c,
            .scale = scale_.data() + c / 32,
            .total = total_.data() + c / 32,
            .sum = sum_.data() + c / 16};
  }
  Wide wide(int cols) { return {.cols = cols, .values = values_.data()}; }

 private:
  size_t cols_ = 0;
  Aligned<int8_t> codes_;
  std::vector<float> scale_, total_;
  std::vector<int32_t> sum_;
  Aligned<uint16_t> values_;
};

}  // namespace pentad
