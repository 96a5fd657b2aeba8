// Times the primitives of a step alone, for the profiler: matrix products and plain reads.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "multiply.h"
#include "guard.h"
#include "native.h"
#include "pack.h"
#include "products.h"
#include "threads.h"

namespace pentad {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Packed weights of no model: codes of every size, scales and minima of about 1/256.
void make_up(const Matrix& m, uint8_t* out) {
  const size_t block = m.layout.block_bytes(), codes = static_cast<size_t>(kRows) * kBlock * m.layout.bits / 8;
  for (size_t at = 0; at < m.bytes(); at += block) {
    for (size_t i = 0; i < codes; i++) out[at + i] = static_cast<uint8_t>((at / block * 31 + i) * 167);
    const uint16_t scale = 0x1c00;
    for (size_t i = codes; i < block; i += 2) std::memcpy(out + at + i, &scale, 2);
  }
}

// The products of one step after each other, as in step.cpp, over up to so many copies of one matrix.
class ProductTimer {
 public:
  ProductTimer(Format format, int rows, int cols, int copies, int threads) : team_(threads), products_(team_.size()) {
    matrix_.layout = layout_of(format);
    matrix_.rows = rows;
    matrix_.cols = cols;
    stride_ = (matrix_.bytes() + 63) / 64 * 64;
    weights_.resize(stride_ * static_cast<size_t>(copies) + 64);
    make_up(matrix_, weights_.data());
    for (int i = 1; i < copies; i++) std::memcpy(weights_.data() + stride_ * static_cast<size_t>(i), weights_.data(), matrix_.bytes());
  }

  void set_tokens(int tokens) {
    const int cols = matrix_.cols;
    const size_t n = static_cast<size_t>((tokens + 31) / 32 * 32) * cols;
    std::vector<float> x(static_cast<size_t>(cols));
    for (int i = 0; i < cols; i++) x[i] = static_cast<float>(i % 17 - 8) / 8.0f;
    out_.resize(static_cast<size_t>(tokens) * matrix_.rows);
    codes_.resize(n), scale_.resize(n / 32), total_.resize(n / 32), sum_.resize(n / 16);
    values_.resize(products_.tiles() ? n : 0);
    products_.reserve(cols, tokens);
    split_.clear();
    split_.add(products_.wide(tokens), tokens);
    for (int t = 0; t < tokens; t++) input().put(x.data(), t, 0, cols / kBlock);
  }

  // Seconds per product, over the first so many copies.
  double run(int copies) {
    const double begin = now();
    team_.run([this, copies](int rank) {
      for (int i = 0; i < copies; i++) {
        Matrix m = matrix_;
        m.data = weights_.data() + stride_ * static_cast<size_t>(i);
        product(m, rank);
        team_.barrier();
      }
      products_.release(rank);
    });
    return (now() - begin) / copies;
  }

 private:
  Input input() {
    return {.codes = {.cols = matrix_.cols,
                      .panel = products_.panel(static_cast<int>(split_.exact.size())),
                      .codes = codes_.data(),
                      .scale = scale_.data(),
                      .total = total_.data(),
                      .sum = sum_.data()},
            .wide = {.cols = matrix_.cols, .values = values_.data()},
            .split = &split_};
  }
  void product(const Matrix& m, int rank) {
    auto [begin, end] = share_of(m.rows / kRows, rank, team_.active());
    const auto keep = [&](int group, int t, f32x16 v) { store(out_.data() + static_cast<size_t>(t) * m.rows + group * kRows, v); };
    products_.multiply(m, input(), begin, end, rank, keep);
  }

  Team team_;
  Products products_;
  Matrix matrix_;
  size_t stride_ = 0;
  std::vector<uint8_t> weights_;
  std::vector<float> out_, scale_, total_;
  std::vector<int8_t> codes_;
  std::vector<int32_t> sum_;
  Aligned<uint16_t> values_;
  Split split_;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

}  // namespace pentad

extern "C" {

int32_t pentad_time_products(int32_t format, int32_t rows, int32_t cols, int32_t threads, int32_t repeats, int32_t count,
                             const int32_t* tokens, const int32_t* copies, double* seconds) {
  if (rows % pentad::kRows || cols % pentad::kBlock || count < 1) return -1;
  return pentad::guarded(-1, [&] {
    const int most = *std::max_element(copies, copies + count);
    pentad::ProductTimer products(static_cast<pentad::Format>(format), rows, cols, most, threads);
    for (int i = 0; i < count; i++) {
      products.set_tokens(tokens[i]);
      products.run(copies[i]);
      std::vector<double> runs;
      for (int repeat = 0; repeat < repeats; repeat++) runs.push_back(products.run(copies[i]));
      seconds[i] = pentad::median(runs);
    }
    return 0;
  });
}

double pentad_time_read(size_t bytes, int32_t passes, int32_t threads, int32_t repeats) {
  return pentad::guarded(-1.0, [&] {
    pentad::Team team(threads);
    std::vector<int32_t> data(bytes / 64 * 16, 1);
    std::vector<int32_t> sums(static_cast<size_t>(team.size()));
    std::vector<double> seconds;
    for (int i = -1; i < repeats; i++) {
      const double begin = pentad::now();
      team.run([&](int rank) {
        auto [from, to] = pentad::share_of(static_cast<int>(data.size() / 64), rank, team.active());
        pentad::i32x16 a{}, b{}, c{}, d{};
        for (int pass = 0; pass < passes; pass++) {
          for (int line = from; line < to; line++) {
            const int32_t* p = data.data() + static_cast<size_t>(line) * 64;
            a += pentad::load_as<pentad::i32x16>(p), b += pentad::load_as<pentad::i32x16>(p + 16);
            c += pentad::load_as<pentad::i32x16>(p + 32), d += pentad::load_as<pentad::i32x16>(p + 48);
          }
          asm volatile("" ::: "memory");  // each pass reads again
        }
        const pentad::i32x16 sum = a + b + c + d;
        for (int i = 0; i < 16; i++) sums[static_cast<size_t>(rank)] += sum[i];
      });
      if (i >= 0) seconds.push_back(pentad::now() - begin);
    }
    volatile int32_t kept = sums[0];
    (void)kept;
    return pentad::median(seconds) / passes;
  });
}
}
