// Weights repacked for dot products, once, at load.
//
// A matrix [rows, cols] becomes groups of 16 rows; within a group, blocks of 32 columns:
//
//   block = codes | scales (16 x fp16) [| second scales] [| minima (16 x fp16)]
//
// 8-bit codes: 8 lines of 64 bytes; line g holds columns 4g .. 4g+3 of each of the 16 rows:
//   byte r*4 + c = code(row r, column 4g + c)           -- one vpdpbusd, or one row of an AMX tile
// 4-bit codes: 4 lines; the low nibbles are line g, the high nibbles line g + 4. 5- and 6-bit codes
// have their upper bits behind these, one line per bit: bit g of byte r*4 + c belongs to line g.
//
// A weight is scale * (code - offset) + minimum. The offset belongs to the format; formats with a
// true minimum store it, the others pay nothing for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace pentad {

enum class Format : int32_t { F32 = 0, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, MXFP4 };

constexpr int kRows = 16;    // rows of a group
constexpr int kBlock = 32;   // columns of a block
constexpr const char* kLayoutName = "16x32-2";  // change it with every change of layout or packed values

struct Layout {
  int bits = 8;        // of a code: 4, 5, 6 or 8
  int offset = 0;      // subtracted from every code
  bool minima = false; // whether minima are stored
  bool halves = false; // whether each half block has its own scales
  size_t block_bytes() const {
    return static_cast<size_t>(kRows) * kBlock * bits / 8 + 32 * (1 + halves + minima);
  }
};

// The code in byte `at` of line g of a block.
inline int code_at(const uint8_t* p, int bits, int g, int at) {
  if (bits == 8) return p[g * 64 + at];
  int code = g < 4 ? p[g * 64 + at] & 15 : p[(g - 4) * 64 + at] >> 4;
  for (int bit = 4; bit < bits; bit++) code |= (p[256 + (bit - 4) * 64 + at] >> g & 1) << bit;
  return code;
}

// The layout a stored format maps to exactly (F32, F16 and BF16: requantized to 8 bits).
Layout layout_of(Format format);
size_t stored_row_bytes(Format format, int cols);

struct Matrix {
  Layout layout;
  int rows = 0;          // padded to a multiple of 16 with zero rows
  int cols = 0;          // a multiple of 32
  const uint8_t* data = nullptr;
  size_t group_bytes() const { return layout.block_bytes() * static_cast<size_t>(cols / kBlock); }
  size_t bytes() const { return group_bytes() * static_cast<size_t>(rows / kRows); }
};

// Packs stored rows [begin, end) of `raw` into `out`; source_row[i] is the stored row of packed row i
// (-1: a zero row). `out` holds rows/16 groups.
void pack_rows(Format format, const uint8_t* raw, int cols, const int32_t* source_row, int rows, uint8_t* out);

// One row of a packed matrix as floats (embedding lookup).
void unpack_row(const Matrix& m, int row, float* out);

}  // namespace pentad
