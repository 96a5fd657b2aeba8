// Packed weights times int8 activations on AMX tiles: the matrix kernel of more than a few tokens.
//
// The products of a block of 32 columns are exact integers in any order, and they are scaled and
// added as in dot.h: what a token gets does not depend on how many others are in the step.
#pragma once
#include <vector>

#include "multiply.h"
#include "pack.h"
#include "simd.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define PENTAD_TILES 1
namespace pentad {

constexpr int kTileTokens = 16;
constexpr int kTilesFrom = 9;  // tokens from which tiles beat dot.h

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// GCC's tile intrinsics do not say that they read memory: what was stored for them must come before.
PENTAD_INLINE void settle_memory() { asm volatile("" ::: "memory"); }

// The shape of this thread's tile registers, loaded when another one is needed.
class TileShape {
 public:
  // Tiles 0-3 hold sums of `tokens` rows, 4-5 codes of as many tokens, 6-7 one block of weights.
  void products(int tokens) {
    if (shape_ == tokens) return;
    TileConfig config;
    for (int i : {0, 1, 2, 3}) config.bytes[i] = 64, config.rows[i] = static_cast<uint8_t>(tokens);
    for (int i : {4, 5}) config.bytes[i] = kBlock, config.rows[i] = static_cast<uint8_t>(tokens);
    for (int i : {6, 7}) config.bytes[i] = 64, config.rows[i] = kBlock / 4;
    settle_memory();
    _tile_loadconfig(&config);
    shape_ = tokens;
  }
  // All tiles 16 rows of 64 bytes: 0-3 sums, 4-5 tokens in bf16, 6-7 weights.
  void wide() {
    if (shape_ == kWide) return;
    TileConfig config;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    settle_memory();
    _tile_loadconfig(&config);
    shape_ = kWide;
  }
  // Tiles 0-3 hold sums of `rows` queries, 4 their vectors, 5 their weights of a block, 6 keys of one, 7 values.
  void attention(int rows) {
    if (shape_ == kAttention - rows) return;
    TileConfig config;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = static_cast<uint8_t>(rows);
    config.bytes[5] = 32;
    config.rows[6] = 16;
    config.rows[7] = 8;
    settle_memory();
    _tile_loadconfig(&config);
    shape_ = kAttention - rows;
  }
  void release() {
    if (shape_) _tile_release();
    shape_ = 0;
  }

 private:
  static constexpr int kWide = -1, kAttention = -1;
  int shape_ = 0;
};

// Tokens of a tile: the step's tokens spread evenly over as few tiles as hold them.
inline int tile_tokens(int tokens) {
  const int tiles = (tokens + kTileTokens - 1) / kTileTokens;
  return ((tokens + tiles - 1) / tiles + 3) / 4 * 4;
}

// One group of 16 rows, ready for tiles: signed codes, 8 lines of 64 bytes a block (twice, with the
// other half zero, where each half has its own scales), and scales and minima as floats.
class WideGroup {
 public:
  void reserve(int cols) {
    const size_t blocks = static_cast<size_t>(cols / kBlock);
    if (blocks * 3 * kRows <= scales_.size()) return;
    lines_.resize((blocks + 1) * 1024);
    scales_.resize(blocks * 3 * kRows);
  }
  template <int kBits, bool kMinima, bool kHalves>
  void fill(const uint8_t* p, const Layout& layout, int blocks) {
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
  const uint8_t* lines() const { return lines_.data(); }
  const float* scales() const { return scales_.data(); }

 private:
  Aligned<uint8_t> lines_;
  std::vector<float> scales_;
};

// What a thread needs for products on tiles.
struct TileWork {
  TileShape shape;
  WideGroup group;
};

// Memory that is fetched bit by bit while something else is computed.
struct Fetch {
  const uint8_t* at;
  const uint8_t* end;
  int bytes;  // a time

  void some() {
    const uint8_t* until = at + bytes < end ? at + bytes : end;
    for (; at < until; at += 64) __builtin_prefetch(at, 0, 2);
  }
};

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
__attribute__((noinline)) void tile_dot(const uint8_t* lines, const float* scales, const Quantized& x, int token, Fetch& fetch, f32x16* out) {
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

template <int kTokens, int kBits, bool kMinima, bool kHalves, typename Epilogue>
void groups_tiles(const Matrix& m, const Quantized& x, int tokens, int begin, int end, TileWork& work, Epilogue&& epilogue) {
  const int blocks = m.cols / kBlock, panels = (tokens + kTokens - 1) / kTokens, stages = blocks / (kHalves ? 1 : 2) * panels;
  const size_t bytes = m.group_bytes();
  for (int group = begin; group < end; group++) {
    const uint8_t* p = m.data + bytes * static_cast<size_t>(group);
    work.group.fill<kBits, kMinima, kHalves>(p, m.layout, blocks);
    // Memory is read while the tiles compute, not between.
    Fetch fetch{p + bytes, p + bytes * (group + 1 < m.rows / kRows ? 2 : 1), static_cast<int>(bytes) / std::max(stages, 1) + 1};
    for (int t = 0; t < tokens; t += kTokens) {
      f32x16 out[kTokens];
      tile_dot<kTokens, kMinima, kHalves>(work.group.lines(), work.group.scales(), x, t, fetch, out);
      for (int i = 0; i < kTokens && t + i < tokens; i++) epilogue(group, t + i, out[i]);
    }
  }
}

// As `multiply` in dot.h, to the same bits. x has panels of tile_tokens(tokens), the last one padded.
template <typename Epilogue>
void multiply_tiles(const Matrix& m, const Quantized& x, int tokens, int begin, int end, TileWork& work, Epilogue&& epilogue) {
  const int each = x.panel;
  work.shape.products(each);
  with_layout(m.layout, [&]<int kBits, bool kMinima, bool kHalves>() {
    switch (each) {
      case 4: return groups_tiles<4, kBits, kMinima, kHalves>(m, x, tokens, begin, end, work, epilogue);
      case 8: return groups_tiles<8, kBits, kMinima, kHalves>(m, x, tokens, begin, end, work, epilogue);
      case 12: return groups_tiles<12, kBits, kMinima, kHalves>(m, x, tokens, begin, end, work, epilogue);
      default: return groups_tiles<16, kBits, kMinima, kHalves>(m, x, tokens, begin, end, work, epilogue);
    }
  });
}

}  // namespace pentad
#endif
