// Weights times bf16 activations on AMX tiles: the matrix kernel of prefill and large batches.
// Weights are widened to bf16 once per 32 rows and reused by every token of the step.
#pragma once
#include "pack.h"
#include "simd.h"

namespace pentad {
constexpr int kTilesFrom = 12;  // tokens from which widening the weights pays
}

#if defined(__AMX_BF16__)
#define PENTAD_TILES 1
namespace pentad {

constexpr int kTileTokens = 32;  // activations are padded to this many rows

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0-3 accumulate, 4-5 hold activations, 6-7 weights; all 16 rows of 64 bytes.
inline void tiles_begin() {
  TileConfig config;
  for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
  _tile_loadconfig(&config);
}
inline void tiles_end() { _tile_release(); }

// 16 rows as tile pairs: for each block of 32 columns, 16 lines of [row][2 columns] bf16.
template <int kBits>
void widen_group(const uint8_t* p, const Layout& layout, int blocks, uint16_t* out) {
  constexpr int code_bytes = kRows * kBlock * kBits / 8;
  // Takes 16 bf16 of column c and 16 of column c + 1 to 16 pairs.
  alignas(64) uint16_t order[32];
  for (int i = 0; i < 16; i++) order[2 * i] = static_cast<uint16_t>(i), order[2 * i + 1] = static_cast<uint16_t>(i + 16);
  const __m512i interleave = _mm512_load_si512(order);
  const __m512i byte = _mm512_set1_epi32(255), low = _mm512_set1_epi8(15);
  const float offset = static_cast<float>(layout.offset);
  for (int b = 0; b < blocks; b++, p += layout.block_bytes(), out += 512) {
    const uint16_t* tail = reinterpret_cast<const uint16_t*>(p + code_bytes);
    const f32x16 s0 = load_half(tail), s1 = layout.halves ? load_half(tail + kRows) : s0;
    const f32x16 m = layout.minima ? load_half(tail + kRows * (1 + layout.halves)) : splat(0.0f);
    const f32x16 base[2] = {m - s0 * offset, m - s1 * offset};
    for (int g = 0; g < 8; g++) {
      __m512i line;
      if constexpr (kBits == 8) {
        line = _mm512_loadu_si512(p + g * 64);
      } else {
        line = _mm512_loadu_si512(p + (g & 3) * 64);
        line = g < 4 ? _mm512_and_si512(line, low) : _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
      }
      const f32x16 s = g < 4 ? s0 : s1, z = base[g >> 2];
      for (int pair = 0; pair < 2; pair++) {
        __m512i first = _mm512_and_si512(pair ? _mm512_srli_epi32(line, 16) : line, byte);
        __m512i second = pair ? _mm512_srli_epi32(line, 24) : _mm512_and_si512(_mm512_srli_epi32(line, 8), byte);
        __m512 x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(first), (__m512)s, (__m512)z);
        __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(second), (__m512)s, (__m512)z);
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(y, x);
        _mm512_storeu_si512(out + g * 64 + pair * 32, _mm512_permutexvar_epi16(interleave, both));
      }
    }
  }
}

// The products of two widened groups with all tokens; use(token, first 16 rows, second 16 rows).
template <typename Use>
PENTAD_INLINE void tile_products(const uint16_t* w0, const uint16_t* w1, int cols, const uint16_t* x, int tokens, Use&& use) {
  const int blocks = cols / kBlock, stride = cols * 2;
  alignas(64) float c[4][16][16];
  for (int t = 0; t < tokens; t += kTileTokens) {
    const uint16_t* a0 = x + static_cast<size_t>(t) * cols;
    const uint16_t* a1 = a0 + static_cast<size_t>(16) * cols;
    const bool two = t + 16 < tokens;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int b = 0; b < blocks; b++) {
      _tile_loadd(4, a0 + b * kBlock, stride);
      _tile_loadd(6, w0 + b * 512, 64);
      _tile_loadd(7, w1 + b * 512, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (two) {
        _tile_loadd(5, a1 + b * kBlock, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, c[0], 64);
    _tile_stored(1, c[1], 64);
    if (two) {
      _tile_stored(2, c[2], 64);
      _tile_stored(3, c[3], 64);
    }
    for (int half = 0; half <= static_cast<int>(two); half++)
      for (int i = 0; i < 16 && t + half * 16 + i < tokens; i++)
        use(t + half * 16 + i, load(c[half * 2][i]), load(c[half * 2 + 1][i]));
  }
}

inline void widen(const Matrix& m, int group, uint16_t* out) {
  const uint8_t* p = m.data + m.group_bytes() * group;
  if (m.layout.bits == 4) widen_group<4>(p, m.layout, m.cols / kBlock, out);
  else widen_group<8>(p, m.layout, m.cols / kBlock, out);
}

// Calls epilogue(group, token, 16 values). x is [tokens padded to 32][cols] bf16; `scratch` holds
// 2 * 16 * cols bf16.
template <typename Epilogue>
void multiply_tiles(const Matrix& m, const uint16_t* x, int tokens, int begin, int end, uint16_t* scratch,
                    Epilogue&& epilogue) {
  uint16_t* second = scratch + static_cast<size_t>(kRows) * m.cols;
  for (int group = begin; group < end; group += 2) {
    const bool two = group + 1 < end;
    widen(m, group, scratch);
    if (two) widen(m, group + 1, second);
    tile_products(scratch, two ? second : scratch, m.cols, x, tokens, [&](int t, f32x16 a, f32x16 b) {
      epilogue(group, t, a);
      if (two) epilogue(group + 1, t, b);
    });
  }
}

// The same group of two matrices at once: epilogue(group, token, 16 values of a, 16 values of b).
template <typename Epilogue>
void multiply_tiles_pair(const Matrix& a, const Matrix& b, const uint16_t* x, int tokens, int begin, int end,
                         uint16_t* scratch, Epilogue&& epilogue) {
  uint16_t* second = scratch + static_cast<size_t>(kRows) * a.cols;
  for (int group = begin; group < end; group++) {
    widen(a, group, scratch);
    widen(b, group, second);
    tile_products(scratch, second, a.cols, x, tokens,
                  [&](int t, f32x16 first, f32x16 other) { epilogue(group, t, first, other); });
  }
}

}  // namespace pentad
#endif
