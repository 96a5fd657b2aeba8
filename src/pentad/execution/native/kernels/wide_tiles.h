// Packed weights times bf16 activations on AMX tiles: the matrix kernel of prompts.
//
// Weights are widened to bf16 once per 32 rows and serve every token of the step, and sums stay in
// the tiles over all columns: twice as fast as code_tiles.h, and the activations keep more bits.
#pragma once
#include <vector>

#include "code_tiles.h"

namespace pentad {

// Activations of T tokens in bf16, each tile's together.
struct Wide {
  int cols = 0;
  uint16_t* values = nullptr;  // [T / 16][cols / 32][16][32]

  // Where 32 columns of a token lie.
  uint16_t* at(int token, int block) const {
    const size_t tile = static_cast<size_t>(token / 16) * static_cast<size_t>(cols / kBlock) + static_cast<size_t>(block);
    return values + tile * 16 * kBlock + token % 16 * kBlock;
  }
  // Takes 16 columns of a token.
  void put(f32x16 values, int token, int group) const {
    store_as(at(token, group / 2) + group % 2 * 16, to_bf16(values));
  }
  // Takes `count` blocks of one row, from block `first` on; x points to the first of them.
  void put(const float* x, int token, int first, int count) const {
    uint16_t* out = at(token, first);
    for (int b = 0; b < count; b++, x += kBlock, out += 16 * kBlock) {
      store_as(out, to_bf16(load(x)));
      store_as(out + 16, to_bf16(load(x + 16)));
    }
  }
};

}  // namespace pentad

#if PENTAD_TILES
namespace pentad {

// 16 rows as tiles: for each block of 32 columns, 16 lines of [row][2 columns].
template <int kBits, bool kMinima, bool kHalves>
void widen(const uint8_t* p, const Layout& layout, int blocks, uint16_t* out) {
  constexpr int code_bytes = kRows * kBlock * kBits / 8;
  // Takes 16 values of one column and 16 of the next to 16 pairs.
  alignas(64) uint16_t order[32];
  for (int i = 0; i < 16; i++) order[2 * i] = static_cast<uint16_t>(i), order[2 * i + 1] = static_cast<uint16_t>(i + 16);
  const __m512i pairs = _mm512_load_si512(order), byte = _mm512_set1_epi32(255);
  const float offset = static_cast<float>(layout.offset);
  for (int b = 0; b < blocks; b++, p += layout.block_bytes(), out += 512) {
    for (int i = 0; i < static_cast<int>(layout.block_bytes()); i += 64) __builtin_prefetch(p + kAhead + i, 0, 2);
    const uint16_t* tail = reinterpret_cast<const uint16_t*>(p + code_bytes);
    const f32x16 low = load_half(tail), high = kHalves ? load_half(tail + kRows) : low;
    const f32x16 minima = kMinima ? load_half(tail + kRows * (1 + kHalves)) : splat(0.0f);
    const Lines<kBits> codes(p);
    each<8>([&](auto g) PENTAD_LAMBDA {
      const f32x16 scale = g < 4 ? low : high, base = minima - scale * offset;
      const __m512i line = codes.line[g];
      const __m512i columns[4] = {_mm512_and_si512(line, byte), _mm512_and_si512(_mm512_srli_epi32(line, 8), byte),
                                  _mm512_and_si512(_mm512_srli_epi32(line, 16), byte), _mm512_srli_epi32(line, 24)};
      each<2>([&](auto i) PENTAD_LAMBDA {
        const f32x16 x = muladd(to_float((i32x16)columns[2 * i]), scale, base);
        const f32x16 y = muladd(to_float((i32x16)columns[2 * i + 1]), scale, base);
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x);
        _mm512_store_si512(out + g * 64 + i * 32, _mm512_permutexvar_epi16(pairs, both));
      });
    });
  }
}

// Two widened groups, and the sums of two tiles of tokens with both.
class WidePair {
 public:
  void reserve(int cols) {
    const size_t elements = static_cast<size_t>(kRows) * cols;
    if (elements <= elements_) return;
    memory_.resize(2 * elements);
    elements_ = elements;
  }
  void fill(int which, const Matrix& m, int group) {
    const uint8_t* p = m.data + m.group_bytes() * static_cast<size_t>(group);
    with_layout(m.layout, [&]<int kBits, bool kMinima, bool kHalves>() {
      widen<kBits, kMinima, kHalves>(p, m.layout, m.cols / kBlock, weights(which));
    });
  }
  // use(token, 16 sums of the first group, 16 of the second) for every token.
  template <typename Use>
  void multiply(const Wide& x, int tokens, Use&& use) {
    const int blocks = x.cols / kBlock;
    const uint16_t *w0 = weights(0), *w1 = weights(1);
    settle_memory();
    for (int t = 0; t < tokens; t += 32) {
      const uint16_t *a0 = x.at(t, 0), *a1 = x.at(t + 16, 0);
      const bool two = t + 16 < tokens;
      _tile_zero(0);
      _tile_zero(1);
      if (two) {
        _tile_zero(2);
        _tile_zero(3);
        for (int b = 0; b < blocks; b++) {
          _tile_loadd(4, a0 + b * 512, 64);
          _tile_loadd(6, w0 + b * 512, 64);
          _tile_dpbf16ps(0, 4, 6);
          _tile_loadd(7, w1 + b * 512, 64);
          _tile_dpbf16ps(1, 4, 7);
          _tile_loadd(5, a1 + b * 512, 64);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, sums_[1][0], 64);
        _tile_stored(3, sums_[1][1], 64);
      } else {
        for (int b = 0; b < blocks; b++) {
          _tile_loadd(4, a0 + b * 512, 64);
          _tile_loadd(6, w0 + b * 512, 64);
          _tile_dpbf16ps(0, 4, 6);
          _tile_loadd(7, w1 + b * 512, 64);
          _tile_dpbf16ps(1, 4, 7);
        }
      }
      _tile_stored(0, sums_[0][0], 64);
      _tile_stored(1, sums_[0][1], 64);
      settle_memory();
      for (int tile = 0; tile < 1 + two; tile++) {
        const int first = t + tile * 16, count = tokens - first < 16 ? tokens - first : 16;
        for (int i = 0; i < count; i++) use(first + i, load(sums_[tile][0][i]), load(sums_[tile][1][i]));
      }
    }
  }

 private:
  uint16_t* weights(int which) { return memory_.data() + static_cast<size_t>(which) * elements_; }
  size_t elements_ = 0;
  Aligned<uint16_t> memory_;
  alignas(64) float sums_[2][2][16][kRows];
};

}  // namespace pentad
#endif
