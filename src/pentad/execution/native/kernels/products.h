// Products of packed weights with the activations of a step: in bf16 on tiles for the tokens of a
// prompt, and 8-bit for all others, on tiles or as in dot.h, which give the same bits.
#pragma once
#include <vector>

#include "code_tiles.h"
#include "multiply.h"
#include "pack.h"
#include "wide_tiles.h"

#if PENTAD_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pentad {

// Which tokens of a step are computed in bf16. The others get what they would get alone.
struct Split {
  std::vector<int32_t> place;  // of token t: its index among the 8-bit ones, or ~index among the others
  std::vector<int32_t> exact, wide;

  void clear() { place.clear(), exact.clear(), wide.clear(); }
  void add(bool in_bf16, int count) {
    std::vector<int32_t>& list = in_bf16 ? wide : exact;
    for (int i = 0; i < count; i++) {
      const int32_t index = static_cast<int32_t>(list.size());
      list.push_back(static_cast<int32_t>(place.size()));
      place.push_back(in_bf16 ? ~index : index);
    }
  }
};

// The input of a product: activations of all tokens, each as it is to be computed.
struct Input {
  Quantized codes;
  Wide wide;
  const Split* split = nullptr;

  // Takes `count` blocks of one row, from block `first` on; x points to the first of them.
  void put(const float* x, int token, int first, int count) const {
    const int at = split->place[static_cast<size_t>(token)];
    if (at >= 0) quantize(x, codes, at, first, count);
    else wide.put(x, ~at, first, count);
  }
};

// What the threads of a team need for their products. They allocate nothing: reserve() comes first.
class Products {
 public:
  explicit Products(int threads) : rooms_(static_cast<size_t>(threads)) {
#if PENTAD_TILES
    tiles_ = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    work_ = std::vector<TileWork>(static_cast<size_t>(threads));
    pairs_ = std::vector<WidePairs>(static_cast<size_t>(threads));
#endif
  }
  bool tiles() const { return tiles_; }
  // Takes the memory that products of up to so many tokens and columns are computed in.
  void reserve(int cols, [[maybe_unused]] int tokens) {
    for (Aligned<uint8_t>& room : rooms_)
      if (room.size() < pair_bytes(cols)) room.resize(pair_bytes(cols));
#if PENTAD_TILES
    for (TileWork& work : work_) work.group.reserve(cols);
    for (WidePairs& pairs : pairs_) pairs.reserve(cols, tokens);
#endif
  }
  // Whether tokens that come so many at once are better computed in bf16.
  bool wide(int tokens) const { return tiles_ && tokens >= kWideFrom; }
  // Tokens of a panel of Quantized, for products of so many.
  int panel([[maybe_unused]] int tokens) const {
#if PENTAD_TILES
    if (tiles_ && tokens >= kTilesFrom) return tile_tokens(tokens);
#endif
    return 1;
  }
  // Calls epilogue(group, token, 16 values) for every group in [begin, end) and every token.
  template <typename Epilogue>
  void multiply(const Matrix& m, const Quantized& x, int tokens, int begin, int end, int rank, Epilogue&& epilogue) {
#if PENTAD_TILES
    if (x.panel > 1) return multiply_tiles(m, x, tokens, begin, end, work_[static_cast<size_t>(rank)], epilogue);
#endif
    Aligned<uint8_t>& room = rooms_[static_cast<size_t>(rank)];
    pentad::multiply(m, x, tokens, begin, end, room.size() < pair_bytes(m.cols) ? nullptr : room.data(), epilogue);
  }
  template <typename Epilogue>
  void multiply(const Matrix& m, const Input& x, int begin, int end, int rank, Epilogue&& epilogue) {
    multiply_exact(m, x, begin, end, rank, epilogue);
    multiply_wide(m, x, begin, end, rank, [&](int group, int i, f32x16 v) PENTAD_LAMBDA {
      epilogue(group, x.split->wide[static_cast<size_t>(i)], v);
    });
  }
  // The others: epilogue(group, index among them, 16 values).
  template <typename Epilogue>
  void multiply_wide([[maybe_unused]] const Matrix& m, [[maybe_unused]] const Input& x, [[maybe_unused]] int begin,
                     [[maybe_unused]] int end, [[maybe_unused]] int rank, [[maybe_unused]] Epilogue&& epilogue) {
#if PENTAD_TILES
    if (x.split->wide.empty()) return;
    WidePairs& pairs = widened(rank);
    const auto at = [&](int i) { return begin + 2 * i; };
    pairs.multiply(
        x.wide, static_cast<int>(x.split->wide.size()), (end - begin + 1) / 2,
        [&](int i, auto&& to_widen) {
          to_widen(0, m, at(i));
          if (at(i) + 1 < end) to_widen(1, m, at(i) + 1);
        },
        [&](int i, int token, f32x16 a, f32x16 b) PENTAD_LAMBDA {
          epilogue(at(i), token, a);
          if (at(i) + 1 < end) epilogue(at(i) + 1, token, b);
        });
#endif
  }
  // The 8-bit ones of the tokens alone.
  template <typename Epilogue>
  void multiply_exact(const Matrix& m, const Input& x, int begin, int end, int rank, Epilogue&& epilogue) {
    const std::vector<int32_t>& tokens = x.split->exact;
    if (tokens.empty()) return;
    multiply(m, x.codes, static_cast<int>(tokens.size()), begin, end, rank,
             [&](int group, int i, f32x16 v) PENTAD_LAMBDA { epilogue(group, tokens[static_cast<size_t>(i)], v); });
  }
  // The others, with the same groups of two matrices: epilogue(group, index among them, values of a, values of b).
  template <typename Epilogue>
  void multiply_wide([[maybe_unused]] const Matrix& a, [[maybe_unused]] const Matrix& b, [[maybe_unused]] const Input& x,
                     [[maybe_unused]] int begin, [[maybe_unused]] int end, [[maybe_unused]] int rank,
                     [[maybe_unused]] Epilogue&& epilogue) {
#if PENTAD_TILES
    WidePairs& pairs = widened(rank);
    pairs.multiply(
        x.wide, static_cast<int>(x.split->wide.size()), end - begin,
        [&](int i, auto&& to_widen) {
          to_widen(0, a, begin + i);
          to_widen(1, b, begin + i);
        },
        [&](int i, int token, f32x16 of_a, f32x16 of_b) PENTAD_LAMBDA { epilogue(begin + i, token, of_a, of_b); });
#endif
  }
#if PENTAD_TILES
  TileShape& shape(int rank) { return work_[static_cast<size_t>(rank)].shape; }
#endif
  // At the end of a thread's part of a step: gives the tile registers back.
  void release([[maybe_unused]] int rank) {
#if PENTAD_TILES
    shape(rank).release();
#endif
  }

 private:
  static constexpr int kWideFrom = 32;

  bool tiles_ = false;
  std::vector<Aligned<uint8_t>> rooms_;  // of each thread, where groups are widened
#if PENTAD_TILES
  WidePairs& widened(int rank) {
    shape(rank).wide();
    return pairs_[static_cast<size_t>(rank)];
  }
  std::vector<TileWork> work_;
  std::vector<WidePairs> pairs_;
#endif
};

}  // namespace pentad
