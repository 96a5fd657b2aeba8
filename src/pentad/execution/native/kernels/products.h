// Products of packed weights with quantized activations: on tiles where the machine has them and the
// step has enough tokens, else as in dot.h. Both give the same bits.
#pragma once
#include <vector>

#include "code_tiles.h"
#include "dot.h"
#include "pack.h"

#if PENTAD_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pentad {

// What the threads of a team need for their products.
class Products {
 public:
  explicit Products([[maybe_unused]] int threads) {
#if PENTAD_TILES
    tiles_ = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    work_ = std::vector<TileWork>(static_cast<size_t>(threads));
#endif
  }
  bool tiles() const { return tiles_; }
  // Tokens of a panel of Quantized, for products of so many.
  int panel([[maybe_unused]] int tokens) const {
#if PENTAD_TILES
    if (tiles_ && tokens >= kTilesFrom) return tile_tokens(tokens);
#endif
    return 1;
  }
  // Calls epilogue(group, token, 16 values) for every group in [begin, end) and every token.
  template <typename Epilogue>
  void multiply(const Matrix& m, const Quantized& x, int tokens, int begin, int end, [[maybe_unused]] int rank,
                Epilogue&& epilogue) {
#if PENTAD_TILES
    if (x.panel > 1) return multiply_tiles(m, x, tokens, begin, end, work_[static_cast<size_t>(rank)], epilogue);
#endif
    pentad::multiply(m, x, tokens, begin, end, epilogue);
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
  bool tiles_ = false;
#if PENTAD_TILES
  std::vector<TileWork> work_;
#endif
};

}  // namespace pentad
