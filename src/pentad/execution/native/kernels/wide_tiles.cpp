#include "wide_tiles.h"

#if PENTAD_TILES
namespace pentad {

namespace {

template <int kBits, bool kMinima, bool kHalves>
void widen_rows(const uint8_t* p, const Layout& layout, int blocks, uint16_t* out) {
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

}  // namespace

void widen(const uint8_t* p, const Layout& layout, int blocks, uint16_t* out) {
  with_layout(layout, [&]<int kBits, bool kMinima, bool kHalves>() { widen_rows<kBits, kMinima, kHalves>(p, layout, blocks, out); });
}

void WidePairs::pass(const Wide& x, int t, int tokens, const Part& of, const uint16_t* w0, const uint16_t* w1,
                               int turn, float* sums) {
  const uint16_t *a0 = x.at(t, of.from), *a1 = x.at(t + 16, of.from);
  const bool two = t + 16 < tokens;
  const uint16_t* next = t + 32 < tokens ? x.at(t + 32 + turn / 4 * 16, of.from) : x.at(turn / 4 * 16, of.to % of.blocks);
  next += turn % 4 * 128;
  if (of.from == 0) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + 256, 64);
    _tile_loadd(2, sums + 512, 64);
    _tile_loadd(3, sums + 768, 64);
  }
  const int blocks = of.to - of.from;
  if (two) {
    for (int b = 0; b < blocks; b++) {
      for (int i = 0; i < 4; i++) __builtin_prefetch(next + b * 512 + i * 32, 0, 2);
      // Activations serve all pairs and stay in the first cache, out of which weights would only push them.
      _tile_stream_loadd(6, w0 + b * 512, 64);
      _tile_stream_loadd(7, w1 + b * 512, 64);
      _tile_loadd(4, a0 + b * 512, 64);
      _tile_loadd(5, a1 + b * 512, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  } else {
    for (int b = 0; b < blocks; b++) {
      _tile_stream_loadd(6, w0 + b * 512, 64);
      _tile_stream_loadd(7, w1 + b * 512, 64);
      _tile_loadd(4, a0 + b * 512, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
  settle_memory();
}

}  // namespace pentad
#endif
