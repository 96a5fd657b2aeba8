// Held against plain arithmetic, in one program that an emulator can run: products of every packed layout, and
// attention. Prints the largest error of each; exits with 1 where one is too large. See scripts/cross_check.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "dot.h"
#include "native.h"

namespace {

using namespace pentad;

std::mt19937 draw(7);

float uniform(float from, float to) { return std::uniform_real_distribution<float>(from, to)(draw); }

// Random stored rows whose scales are small numbers. Every format keeps its halves in the first or last bytes.
std::vector<uint8_t> stored(Format format, int rows, int cols) {
  std::vector<uint8_t> raw(stored_row_bytes(format, cols) * static_cast<size_t>(rows));
  for (auto& byte : raw) byte = static_cast<uint8_t>(draw());
  const bool wide = format == Format::Q4_K || format == Format::Q5_K || format == Format::Q6_K;
  const size_t block = stored_row_bytes(format, wide ? 256 : 32);
  for (size_t at = 0; at < raw.size(); at += block) {
    const uint16_t halves[2] = {float_to_half(uniform(0.001f, 0.01f)), float_to_half(uniform(-0.05f, 0.05f))};
    if (format == Format::Q6_K) std::memcpy(raw.data() + at + block - 2, halves, 2);
    else std::memcpy(raw.data() + at, halves, format == Format::Q4_0 || format == Format::Q5_0 || format == Format::Q8_0 ? 2 : 4);
  }
  return raw;
}

double product_error(Format format) {
  const int rows = 48, cols = 512, tokens = 11;
  const std::vector<uint8_t> raw = stored(format, rows, cols);
  std::vector<int32_t> order(rows);
  for (int r = 0; r < rows; r++) order[static_cast<size_t>(r)] = r;
  std::vector<uint8_t> packed(pentad_packed_bytes(static_cast<int32_t>(format), rows, cols) + 16384);
  pack_rows(format, raw.data(), cols, order.data(), rows, packed.data());
  const Matrix m{layout_of(format), rows, cols, packed.data()};
  std::vector<int8_t> codes(tokens * cols);
  std::vector<float> scale(tokens * cols / 32), total(tokens * cols / 32), x(tokens * cols);
  std::vector<int32_t> sum(tokens * cols / 16);
  const Quantized q{.cols = cols, .panel = 1, .codes = codes.data(), .scale = scale.data(), .total = total.data(), .sum = sum.data()};
  for (auto& v : x) v = uniform(-1, 1);
  for (int t = 0; t < tokens; t++) quantize(x.data() + t * cols, q, t, 0, cols / 32);
  std::vector<float> out(tokens * rows), weights(cols);
  multiply(m, q, tokens, 0, rows / kRows, [&](int group, int t, f32x16 v) { store(out.data() + t * rows + group * kRows, v); });
  double worst = 0;
  for (int r = 0; r < rows; r++) {
    unpack_row(m, r, weights.data());
    for (int t = 0; t < tokens; t++) {
      double exact = 0, size = 0;
      for (int c = 0; c < cols; c++) {
        const double term = static_cast<double>(weights[static_cast<size_t>(c)]) * scale[static_cast<size_t>(t * cols + c) / 32] * codes[static_cast<size_t>(t * cols + c)];
        exact += term, size += std::fabs(term);
      }
      worst = std::max(worst, std::fabs(out[static_cast<size_t>(t * rows + r)] - exact) / size);
    }
  }
  return worst;
}

double attention_error() {
  const int dim = 64, context = 83, count = 5;
  std::vector<float> q(count * dim), k(context * dim), v(context * dim), out(count * dim);
  for (auto* values : {&q, &k, &v})
    for (auto& one : *values) one = uniform(-1, 1);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  if (pentad_attend(q.data(), k.data(), v.data(), count, context, dim, 0, 0, scale, 0.0f, 0.0f, -INFINITY, out.data()) < 0) return 1;
  double worst = 0;
  for (int i = 0; i < count; i++) {
    const int limit = context - count + i + 1;
    std::vector<double> weight(static_cast<size_t>(limit)), sum(dim);
    double all = 0;
    for (int s = 0; s < limit; s++) {
      double score = 0;
      for (int d = 0; d < dim; d++) score += static_cast<double>(q[static_cast<size_t>(i * dim + d)]) * k[static_cast<size_t>(s * dim + d)];
      all += weight[static_cast<size_t>(s)] = std::exp(score / std::sqrt(static_cast<double>(dim)));
    }
    for (int s = 0; s < limit; s++)
      for (int d = 0; d < dim; d++) sum[static_cast<size_t>(d)] += weight[static_cast<size_t>(s)] / all * v[static_cast<size_t>(s * dim + d)];
    for (int d = 0; d < dim; d++) worst = std::max(worst, std::fabs(sum[static_cast<size_t>(d)] - out[static_cast<size_t>(i * dim + d)]));
  }
  return worst;
}

}  // namespace

int main() {
  const struct {
    const char* name;
    Format format;
  } formats[] = {{"Q4_0", Format::Q4_0}, {"Q4_1", Format::Q4_1}, {"Q5_0", Format::Q5_0}, {"Q5_1", Format::Q5_1},
                 {"Q8_0", Format::Q8_0}, {"Q4_K", Format::Q4_K}, {"Q5_K", Format::Q5_K}, {"Q6_K", Format::Q6_K}};
  bool good = true;
  std::printf("%s: largest error of products", pentad_kernels());
  for (auto& f : formats) {
    const double error = product_error(f.format);
    good &= error < 1e-5;
    std::printf(", %s %.1e", f.name, error);
  }
  const double error = attention_error();
  good &= error < 1e-2;  // keys, values and weights are bfloat16
  std::printf("; of attention %.1e\n", error);
  return good ? 0 : 1;
}
