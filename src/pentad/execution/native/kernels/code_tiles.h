// Packed weights times int8 activations on AMX tiles: the matrix kernel of more than a few tokens.
//
// The products of a block of 32 columns are exact integers in any order, and they are scaled and
// added as in dot.h: what a token gets does not depend on how many others are in the step.
#pragma once
#include <algorithm>
#include <vector>

#include "group_dots.h"

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
  void fill(const uint8_t* group, const Layout& layout, int blocks);
  const uint8_t* lines() const { return lines_.data(); }
  const float* scales() const { return scales_.data(); }

 private:
  template <int kBits, bool kMinima, bool kHalves>
  void unpack(const uint8_t* group, const Layout& layout, int blocks);

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

// out[t] (16 rows each) of a group and a panel of tokens from `token` on.
using TileDot = void (*)(const WideGroup& group, const Quantized& x, int token, Fetch& fetch, f32x16* out);

// That of panels of 4, 8, 12 or 16 tokens, compiled once, in code_tiles.cpp.
TileDot tile_dot(const Layout& layout, int panel);

// As `multiply` in multiply.h, to the same bits. x has panels of tile_tokens(tokens), the last one padded.
template <typename Epilogue>
void multiply_tiles(const Matrix& m, const Quantized& x, int tokens, int begin, int end, TileWork& work, Epilogue&& epilogue) {
  const int panel = x.panel, blocks = m.cols / kBlock, panels = (tokens + panel - 1) / panel;
  const int stages = blocks / (m.layout.halves ? 1 : 2) * panels;
  const TileDot dot = tile_dot(m.layout, panel);
  const size_t bytes = m.group_bytes();
  work.shape.products(panel);
  for (int group = begin; group < end; group++) {
    const uint8_t* p = m.data + bytes * static_cast<size_t>(group);
    work.group.fill(p, m.layout, blocks);
    // Memory is read while the tiles compute, not between.
    Fetch fetch{p + bytes, p + bytes * (group + 1 < m.rows / kRows ? 2 : 1), static_cast<int>(bytes) / std::max(stages, 1) + 1};
    for (int t = 0; t < tokens; t += panel) {
      f32x16 out[kTileTokens];
      dot(work.group, x, t, fetch, out);
      for (int i = 0; i < panel && t + i < tokens; i++) epilogue(group, t + i, out[i]);
    }
  }
}

}  // namespace pentad
#endif
