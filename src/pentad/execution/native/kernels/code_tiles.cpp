#include "code_tiles.h"

#if PENTAD_TILES
namespace pentad {

template <int kBits, bool kMinima, bool kHalves>
void WideGroup::unpack(const uint8_t* p, const Layout& layout, int blocks) {
  constexpr int code_bytes = kRows * kBlock * kBits / 8;
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(layout.offset));
  uint8_t* out = lines_.data();
  float* scale = scales_.data();
  for (int b = 0; b < blocks; b++, p += layout.block_bytes()) {
    const Lines<kBits> codes(p);
    for (int g = 0; g < 8; g++) {
      const __m512i line = _mm512_sub_epi8(codes.line[g], offset);
      if constexpr (kHalves) {
        _mm512_store_si512(out + g * 64, g < 4 ? line : _mm512_setzero_si512());
        _mm512_store_si512(out + 512 + g * 64, g < 4 ? _mm512_setzero_si512() : line);
      } else {
        _mm512_store_si512(out + g * 64, line);
      }
    }
    out += 512 * (1 + kHalves);
    const uint16_t* tail = reinterpret_cast<const uint16_t*>(p + code_bytes);
    for (int i = 0; i < 1 + kHalves + kMinima; i++, scale += kRows) store(scale, load_half(tail + i * kRows));
  }
}

void WideGroup::fill(const uint8_t* p, const Layout& layout, int blocks) {
  with_layout(layout, [&]<int kBits, bool kMinima, bool kHalves>() { unpack<kBits, kMinima, kHalves>(p, layout, blocks); });
}

namespace {

// The intrinsics take the numbers of tiles as literals.
#define PENTAD_TILE_STAGE(first, second)                                                      \
  const int8_t* x_at = codes + static_cast<size_t>(stage) * kStep * kTokens * kBlock;         \
  const uint8_t* w_at = lines + static_cast<size_t>(stage) * 1024;                            \
  _tile_zero(first);                                                                          \
  _tile_zero(second);                                                                         \
  _tile_loadd(4, x_at, kBlock);                                                               \
  _tile_loadd(6, w_at, 64);                                                                   \
  _tile_dpbssd(first, 4, 6);                                                                  \
  _tile_loadd(7, w_at + 512, 64);                                                             \
  if constexpr (kHalves) {                                                                    \
    _tile_dpbssd(second, 4, 7);                                                               \
  } else {                                                                                    \
    _tile_loadd(5, x_at + kTokens * kBlock, kBlock);                                          \
    _tile_dpbssd(second, 5, 7);                                                               \
  }

// out[t] (16 rows each) for kTokens tokens from `token` on. Where blocks are odd in number, one more
// is computed and left out.
template <int kTokens, bool kMinima, bool kHalves>
void dot_panel(const WideGroup& group, const Quantized& x, int token, Fetch& fetch, f32x16* out) {
  const uint8_t* lines = group.lines();
  const float* scales = group.scales();
  const int blocks = x.cols / kBlock;
  const int8_t* codes = x.codes + static_cast<size_t>(token) * x.cols;          // [block][kTokens][32]
  const float* scale = x.scale + static_cast<size_t>(token) * blocks;  // [block][kTokens]
  const float* total = x.total + static_cast<size_t>(token) * blocks;
  constexpr int kStep = kHalves ? 1 : 2;  // blocks of a stage; it fills both sums
  alignas(64) int32_t sums[2][2][kTokens][kRows];
  f32x16 acc[kTokens];
  each<kTokens>([&](auto t) PENTAD_LAMBDA { acc[t] = splat(0.0f); });

  const int stages = (blocks + kStep - 1) / kStep;
  // Stage i on tiles: 0 and 1 for even stages, 2 and 3 for odd ones.
  auto multiply_even = [&](int stage) PENTAD_LAMBDA {
    PENTAD_TILE_STAGE(0, 1)
  };
  auto multiply_odd = [&](int stage) PENTAD_LAMBDA {
    PENTAD_TILE_STAGE(2, 3)
  };
  auto add_stage = [&](int stage, int buffer) PENTAD_LAMBDA {
    const int b = stage * kStep;
    fetch.some();
    for (int i = 0; i < kStep && b + i < blocks; i++) {
      const float* s = scales + static_cast<size_t>(b + i) * kRows * (1 + kHalves + kMinima);
      const f32x16 ws = load(s);
      each<kTokens>([&](auto t) PENTAD_LAMBDA {
        const float as = scale[(b + i) * kTokens + t];
        const i32x16 dot = *reinterpret_cast<const i32x16*>(sums[buffer][i][t]);
        if constexpr (kHalves) {
          const i32x16 other = *reinterpret_cast<const i32x16*>(sums[buffer][1][t]);
          acc[t] = add_halves(acc[t], dot, ws, other, load(s + kRows), as);
        } else {
          acc[t] = add_block(acc[t], dot, ws, as);
        }
        if constexpr (kMinima)
          acc[t] = muladd(load(s + kRows * (1 + kHalves)), splat(total[(b + i) * kTokens + t]), acc[t]);
      });
    }
  };
  auto keep_even = [&]() PENTAD_LAMBDA {
    _tile_stored(0, sums[0][0], 64);
    _tile_stored(1, sums[0][1], 64);
  };
  auto keep_odd = [&]() PENTAD_LAMBDA {
    _tile_stored(2, sums[1][0], 64);
    _tile_stored(3, sums[1][1], 64);
  };

  // Three stages are under way at any time: one in the tiles, one on its way to memory, and one that
  // the vectors add. Neither waits for the other.
  settle_memory();
  multiply_even(0);
  if (stages > 1) multiply_odd(1);
  keep_even();
  for (int i = 0; i < stages; i += 2) {
    if (i + 2 < stages) multiply_even(i + 2);
    if (i + 1 < stages) keep_odd();
    add_stage(i, 0);
    if (i + 1 == stages) break;
    if (i + 3 < stages) multiply_odd(i + 3);
    if (i + 2 < stages) keep_even();
    add_stage(i + 1, 1);
  }
  each<kTokens>([&](auto t) PENTAD_LAMBDA { out[t] = acc[t]; });
}

template <int kTokens>
TileDot dot_of(const Layout& layout) {
  if (layout.halves) return dot_panel<kTokens, false, true>;
  return layout.minima ? dot_panel<kTokens, true, false> : dot_panel<kTokens, false, false>;
}

}  // namespace

TileDot tile_dot(const Layout& layout, int panel) {
  switch (panel) {
    case 4: return dot_of<4>(layout);
    case 8: return dot_of<8>(layout);
    case 12: return dot_of<12>(layout);
    default: return dot_of<16>(layout);
  }
}

}  // namespace pentad
#endif
