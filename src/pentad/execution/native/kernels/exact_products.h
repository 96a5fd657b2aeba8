// Products in 14-bit codes, for encoders: what comes out is that of float32 to 1e-4, at half the speed of 8-bit codes.
//
// Weights and activations are codes of -8191 .. 8191 with a scale per 32 columns. A block's products are exact integers
// (32 * 8191 * 8191 < 2^31), and blocks are added in order: a token gets the same bits in every batch and on every CPU
// that multiplies and adds alike.
#pragma once
#include <algorithm>
#include <vector>

#include "memory.h"
#include "pack.h"
#include "simd.h"

namespace pentad {

constexpr float kMostCode = 8191.0f;

// One block of 32 values to codes; returns their step.
inline float code_block(const float* x, int16_t* codes) {
  const f32x16 lo = load(x), hi = load(x + 16);
  const float top = hmax(vmax(vabs(lo), vabs(hi)));
  const float inverse = top > 0 ? kMostCode / top : 0.0f;
  alignas(64) int32_t wide[kBlock];
  store_as(wide, round_int(lo * inverse));
  store_as(wide + 16, round_int(hi * inverse));
  for (int i = 0; i < kBlock; i++) codes[i] = static_cast<int16_t>(wide[i]);
  return top / kMostCode;
}

// Rows of activations.
struct ExactInput {
  std::vector<int16_t> codes;  // [tokens][cols]
  std::vector<float> steps;    // [tokens][cols / 32]

  void reserve(int tokens, int most_cols) {
    const size_t n = static_cast<size_t>(tokens) * static_cast<size_t>(most_cols);
    if (codes.size() < n) codes.resize(n), steps.resize(n / kBlock);
  }
  void put(const float* x, int token, int cols) {
    int16_t* c = codes.data() + static_cast<size_t>(token) * cols;
    float* s = steps.data() + static_cast<size_t>(token) * (cols / kBlock);
    for (int b = 0; b < cols / kBlock; b++) s[b] = code_block(x + b * kBlock, c + b * kBlock);
  }
};

// A matrix in groups of 16 rows: of every block 16 lines, each of 2 columns of all rows, then the steps of the rows.
struct ExactMatrix {
  static constexpr size_t kLine = 2 * kRows, kBlockBytes = kRows * kBlock * 2 + kRows * 4;
  int rows = 0, cols = 0;
  Aligned<uint8_t> data;

  size_t group_bytes() const { return static_cast<size_t>(cols / kBlock) * kBlockBytes; }
  size_t bytes() const { return group_bytes() * static_cast<size_t>(rows / kRows); }
  // Takes the memory of a matrix of that many rows, a multiple of 16.
  void shape(int r, int c) {
    rows = r, cols = c;
    data.resize(bytes());
  }
  // Packs the rows of one group.
  void pack(int group, const float* values) {
    uint8_t* p = data.data() + group_bytes() * static_cast<size_t>(group);
    for (int b = 0; b < cols / kBlock; b++, p += kBlockBytes) {
      int16_t* lines = reinterpret_cast<int16_t*>(p);
      float* steps = reinterpret_cast<float*>(p + kRows * kBlock * 2);
      for (int r = 0; r < kRows; r++) {
        int16_t codes[kBlock];
        steps[r] = code_block(values + (static_cast<size_t>(group) * kRows + r) * cols + b * kBlock, codes);
        for (size_t i = 0; i < kBlock; i++) lines[i / 2 * kLine + static_cast<size_t>(r) * 2 + i % 2] = codes[i];
      }
    }
  }
};

// sum + the products of two columns of 16 rows with a pair of codes.
PENTAD_INLINE i32x16 add_pairs(i32x16 sum, const uint8_t* line, const int16_t* pair) {
  int32_t both;
  std::memcpy(&both, pair, 4);
#if defined(__AVX512VNNI__)
  return (i32x16)_mm512_dpwssd_epi32((__m512i)sum, _mm512_loadu_si512(line), _mm512_set1_epi32(both));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; i++) {
    const __m256i products =
        _mm256_madd_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(line) + i), _mm256_set1_epi32(both));
    sum.piece[i] += (i32x16::Piece)products;
  }
  return sum;
#else
  const int16_t* rows = reinterpret_cast<const int16_t*>(line);
  for (int r = 0; r < kRows; r++)
    sum.piece[r / kLanes][r % kLanes] += static_cast<int32_t>(rows[2 * r]) * pair[0] + static_cast<int32_t>(rows[2 * r + 1]) * pair[1];
  return sum;
#endif
}

#if defined(__AVX512VNNI__)
constexpr int kExactGroups = 2, kExactTokens = 6;
#else
constexpr int kExactGroups = 1, kExactTokens = 2;
#endif

// use(group, token, 16 values) for some groups and tokens at once.
template <int kGroups, int kTokens, typename Use>
PENTAD_INLINE void exact_tile(const ExactMatrix& m, const ExactInput& x, int group, int token, Use&& use) {
  const size_t apart = m.group_bytes(), cols = static_cast<size_t>(m.cols), blocks = cols / kBlock;
  const uint8_t* p = m.data.data() + apart * static_cast<size_t>(group);
  const int16_t* codes = x.codes.data() + static_cast<size_t>(token) * cols;
  const float* steps = x.steps.data() + static_cast<size_t>(token) * blocks;
  f32x16 sums[kGroups][kTokens];
  for (auto& of_group : sums)
    for (f32x16& sum : of_group) sum = splat(0.0f);
  for (size_t b = 0; b < blocks; b++, p += ExactMatrix::kBlockBytes) {
    i32x16 dots[kGroups][kTokens];
    for (auto& of_group : dots)
      for (i32x16& dot : of_group) dot = splat_i(0);
    each<16>([&](auto j) PENTAD_LAMBDA {
      each<kTokens>([&](auto t) PENTAD_LAMBDA {
        each<kGroups>([&](auto g) PENTAD_LAMBDA {
          dots[g][t] = add_pairs(dots[g][t], p + g * apart + j * 64, codes + t * cols + b * kBlock + 2 * j);
        });
      });
    });
    for (size_t g = 0; g < kGroups; g++) {
      const f32x16 rows = load(reinterpret_cast<const float*>(p + g * apart + kRows * kBlock * 2));
      for (size_t t = 0; t < kTokens; t++)
        sums[g][t] = muladd(to_float(dots[g][t]), rows * steps[t * blocks + b], sums[g][t]);
    }
  }
  for (int g = 0; g < kGroups; g++)
    for (int t = 0; t < kTokens; t++) use(group + g, token + t, sums[g][t]);
}

template <int kGroups, typename Use>
void exact_groups(const ExactMatrix& m, const ExactInput& x, int tokens, int group, Use&& use) {
  int t = 0;
  for (; t + kExactTokens <= tokens; t += kExactTokens) exact_tile<kGroups, kExactTokens>(m, x, group, t, use);
  for (; t < tokens; t++) exact_tile<kGroups, 1>(m, x, group, t, use);
}

// The same for the groups [begin, end) and all tokens.
template <typename Use>
void multiply_exact(const ExactMatrix& m, const ExactInput& x, int tokens, int begin, int end, Use&& use) {
  int group = begin;
  for (; group + kExactGroups <= end; group += kExactGroups) exact_groups<kExactGroups>(m, x, tokens, group, use);
  for (; group < end; group++) exact_groups<1>(m, x, tokens, group, use);
}

}  // namespace pentad
