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
void widen(const uint8_t* group, const Layout& layout, int blocks, uint16_t* out);

// Pairs of groups that share what is fetched of the activations: these come from the last cache, or from memory, where
// the second one does not hold them beside the rest.
constexpr int kPairsAtOnce = 8;
// Blocks of columns that are widened of so many pairs at once. They stay in half of a second cache of 1 MB; where the
// sums of a part of the columns have to stay too, half as many do.
constexpr int kWholeBlocks = 32, kPartBlocks = 16;

// Widened groups, two and two, and their sums.
class WidePairs {
 public:
  void reserve(int cols, int tokens) {
    const size_t elements = kPairsAtOnce * pair_elements(cols / kBlock), sums = kPairsAtOnce * tiles(tokens) * kTileSums;
    if (elements > memory_.size()) memory_.resize(elements);
    if (parts(cols / kBlock) > 1 && sums > kept_.size()) kept_.resize(sums);
  }
  // fill(pair, to_widen) calls to_widen(0 or 1, matrix, group); use(pair, token, 16 sums of the first group, 16 of the
  // second) takes the sums of every pair and token.
  template <typename Fill, typename Use>
  void multiply(const Wide& x, int tokens, int pairs, Fill&& fill, Use&& use) {
    const int blocks = x.cols / kBlock, part = part_blocks(blocks);
    for (int first = 0; first < pairs; first += kPairsAtOnce) {
      const int count = std::min(pairs - first, kPairsAtOnce);
      for (int from = 0; from < blocks; from += part) {
        const Part of{from, std::min(blocks, from + part), blocks};
        for (int i = 0; i < count; i++)
          fill(first + i, [&](int which, const Matrix& m, int group) {
            const uint8_t* p = m.data + m.group_bytes() * static_cast<size_t>(group);
            p += m.layout.block_bytes() * static_cast<size_t>(from);
            widen(p, m.layout, of.to - from, weights(i, which, part));
          });
        settle_memory();
        for (int t = 0; t < tokens; t += 32)
          for (int i = 0; i < count; i++) {
            const size_t tile = static_cast<size_t>(i) * tiles(tokens) + static_cast<size_t>(t / 32);
            float* sums = part < blocks ? kept_.data() + tile * kTileSums : sums_;
            pass(x, t, tokens, of, weights(i, 0, part), weights(i, 1, part), i, sums);
            for (int j = 0; of.to == blocks && j < std::min(32, tokens - t); j++) {
              const float* row = sums + j / 16 * 512 + j % 16 * kRows;
              use(first + i, t + j, load(row), load(row + 256));
            }
          }
      }
    }
  }

 private:
  struct Part {
    int from, to, blocks;
  };
  static constexpr size_t kTileSums = 4 * 16 * kRows;  // of two tiles of tokens with two groups

  static size_t tiles(int tokens) { return static_cast<size_t>(tokens + 31) / 32; }
  static int parts(int blocks) { return blocks <= kWholeBlocks ? 1 : (blocks + kPartBlocks - 1) / kPartBlocks; }
  static int part_blocks(int blocks) { return (blocks + parts(blocks) - 1) / parts(blocks); }
  // Enough also for products of fewer columns, whose parts may be wider.
  static size_t pair_elements(int blocks) {
    return 2 * static_cast<size_t>(kRows) * kBlock * static_cast<size_t>(std::min(blocks, kWholeBlocks));
  }

  // Adds to the sums what the part of the columns gives for 32 tokens. Meanwhile pair `turn` of the pairs fetches its
  // share of the next 32.
  static void pass(const Wide& x, int t, int tokens, const Part& of, const uint16_t* w0, const uint16_t* w1, int turn,
                   float* sums);

  uint16_t* weights(int pair, int which, int part) {
    return memory_.data() + static_cast<size_t>(2 * pair + which) * kRows * kBlock * static_cast<size_t>(part);
  }
  Aligned<uint16_t> memory_;
  Aligned<float> kept_;
  alignas(64) float sums_[kTileSums];
};

}  // namespace pentad
#endif
