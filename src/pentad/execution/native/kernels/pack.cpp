#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "simd.h"

namespace pentad {

namespace {

// One block of 32 columns of one row: unsigned codes with scales and minimum.
struct Decoded {
  uint8_t code[kBlock];
  float scale[2];
  float minimum;
};

float half_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return half_to_float_scalar(h);
}

// Twice the number of each code of MXFP4; the largest of them stands for 0 once codes are unsigned. Scales from
// 2^-24 to 2^15 are kept exactly: so are the weights.
constexpr int kMxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr int kMxfp4Most = 12;

// Scale and minimum of sub-block j (0..7) of a K-quant super-block: 6 bits each in 12 bytes.
void k_scale_min(const uint8_t* s, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = s[j] & 63;
    minimum = s[j + 4] & 63;
  } else {
    scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    minimum = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
}

void quantize_floats(const float* x, Decoded& d) {
  float top = 0;
  for (int i = 0; i < kBlock; i++) top = std::max(top, std::fabs(x[i]));
  float scale = half_to_float_scalar(float_to_half(top / 127.0f));
  if (scale * 127.0f < top) scale = half_to_float_scalar(static_cast<uint16_t>(float_to_half(scale) + 1));
  float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int i = 0; i < kBlock; i++) d.code[i] = static_cast<uint8_t>(std::lrintf(x[i] * inverse) + 128);
  d.scale[0] = d.scale[1] = scale;
  d.minimum = 0;
}

void decode(Format format, const uint8_t* row, int block, Decoded& d) {
  switch (format) {
    case Format::F32: {
      float x[kBlock];
      std::memcpy(x, row + static_cast<size_t>(block) * kBlock * 4, sizeof x);
      return quantize_floats(x, d);
    }
    case Format::F16:
    case Format::BF16: {
      float x[kBlock];
      for (int i = 0; i < kBlock; i++) {
        const uint8_t* p = row + (static_cast<size_t>(block) * kBlock + i) * 2;
        uint16_t h;
        std::memcpy(&h, p, 2);
        uint32_t wide = static_cast<uint32_t>(h) << 16;
        if (format == Format::F16) x[i] = half_to_float_scalar(h);
        else std::memcpy(&x[i], &wide, 4);
      }
      return quantize_floats(x, d);
    }
    case Format::Q4_0: {
      const uint8_t* p = row + static_cast<size_t>(block) * 18;
      d.scale[0] = d.scale[1] = half_at(p);
      d.minimum = 0;
      for (int i = 0; i < 16; i++) d.code[i] = p[2 + i] & 15, d.code[i + 16] = p[2 + i] >> 4;
      return;
    }
    case Format::Q4_1: {
      const uint8_t* p = row + static_cast<size_t>(block) * 20;
      d.scale[0] = d.scale[1] = half_at(p);
      d.minimum = half_at(p + 2);
      for (int i = 0; i < 16; i++) d.code[i] = p[4 + i] & 15, d.code[i + 16] = p[4 + i] >> 4;
      return;
    }
    case Format::Q5_0:
    case Format::Q5_1: {
      bool one = format == Format::Q5_1;
      const uint8_t* p = row + static_cast<size_t>(block) * (one ? 24 : 22);
      d.scale[0] = d.scale[1] = half_at(p);
      d.minimum = one ? half_at(p + 2) : 0;
      const uint8_t* high = p + (one ? 4 : 2);
      uint32_t bits;
      std::memcpy(&bits, high, 4);
      for (int i = 0; i < 16; i++) {
        d.code[i] = static_cast<uint8_t>((high[4 + i] & 15) | ((bits >> i & 1) << 4));
        d.code[i + 16] = static_cast<uint8_t>((high[4 + i] >> 4) | ((bits >> (i + 16) & 1) << 4));
      }
      return;
    }
    case Format::Q8_0: {
      const uint8_t* p = row + static_cast<size_t>(block) * 34;
      d.scale[0] = d.scale[1] = half_at(p);
      d.minimum = 0;
      for (int i = 0; i < kBlock; i++) d.code[i] = static_cast<uint8_t>(p[2 + i] ^ 0x80);
      return;
    }
    case Format::Q4_K:
    case Format::Q5_K: {
      bool five = format == Format::Q5_K;
      const uint8_t* p = row + static_cast<size_t>(block / 8) * (five ? 176 : 144);
      int j = block % 8, scale, minimum;
      k_scale_min(p + 4, j, scale, minimum);
      d.scale[0] = d.scale[1] = half_at(p) * static_cast<float>(scale);
      d.minimum = -half_at(p + 2) * static_cast<float>(minimum);
      const uint8_t* low = p + 16 + (five ? 32 : 0) + (j / 2) * 32;
      for (int i = 0; i < kBlock; i++) {
        int code = (j & 1) ? low[i] >> 4 : low[i] & 15;
        if (five) code |= (p[16 + i] >> j & 1) << 4;
        d.code[i] = static_cast<uint8_t>(code);
      }
      return;
    }
    case Format::Q6_K: {
      const uint8_t* p = row + static_cast<size_t>(block / 8) * 210;
      int j = block % 8, half = j / 4, quarter = j % 4;  // 128 columns a half, 32 a quarter
      const uint8_t* low = p + half * 64 + (quarter & 1) * 32;
      const uint8_t* high = p + 128 + half * 32;
      const int8_t* scales = reinterpret_cast<const int8_t*>(p + 192) + half * 8 + quarter * 2;
      float all = half_at(p + 208);
      for (int i = 0; i < kBlock; i++) {
        int nibble = quarter >= 2 ? low[i] >> 4 : low[i] & 15;
        d.code[i] = static_cast<uint8_t>(nibble | ((high[i] >> (2 * quarter) & 3) << 4));
      }
      d.scale[0] = all * static_cast<float>(scales[0]);
      d.scale[1] = all * static_cast<float>(scales[1]);
      d.minimum = 0;
      return;
    }
    case Format::MXFP4: {
      const uint8_t* p = row + static_cast<size_t>(block) * 17;
      d.scale[0] = d.scale[1] = std::ldexp(1.0f, p[0] - 128);
      d.minimum = 0;
      for (int i = 0; i < 16; i++) {
        d.code[i] = static_cast<uint8_t>(kMxfp4[p[1 + i] & 15] + kMxfp4Most);
        d.code[i + 16] = static_cast<uint8_t>(kMxfp4[p[1 + i] >> 4] + kMxfp4Most);
      }
      return;
    }
  }
}

// The inverse of code_at, in zeroed memory.
void set_code(uint8_t* p, int bits, int g, int at, int code) {
  const auto add = [&](int byte, int value) { p[byte] = static_cast<uint8_t>(p[byte] | value); };
  if (bits == 8) return add(g * 64 + at, code);
  add(g % 4 * 64 + at, (code & 15) << (g < 4 ? 0 : 4));
  for (int bit = 4; bit < bits; bit++) add(256 + (bit - 4) * 64 + at, (code >> bit & 1) << g);
}

}  // namespace

Layout layout_of(Format format) {
  switch (format) {
    case Format::Q4_0: return {.bits = 4, .offset = 8};
    case Format::Q4_1: return {.bits = 4, .minima = true};
    case Format::Q4_K: return {.bits = 4, .minima = true};
    case Format::Q5_0: return {.bits = 5, .offset = 16};
    case Format::Q5_1: return {.bits = 5, .minima = true};
    case Format::Q5_K: return {.bits = 5, .minima = true};
    case Format::Q6_K: return {.bits = 6, .offset = 32, .halves = true};
    case Format::MXFP4: return {.bits = 5, .offset = kMxfp4Most};
    default: return {.bits = 8, .offset = 128};
  }
}

size_t stored_row_bytes(Format format, int cols) {
  size_t n = static_cast<size_t>(cols);
  switch (format) {
    case Format::F32: return n * 4;
    case Format::F16:
    case Format::BF16: return n * 2;
    case Format::Q4_0: return n / 32 * 18;
    case Format::Q4_1: return n / 32 * 20;
    case Format::Q5_0: return n / 32 * 22;
    case Format::Q5_1: return n / 32 * 24;
    case Format::Q8_0: return n / 32 * 34;
    case Format::Q4_K: return n / 256 * 144;
    case Format::Q5_K: return n / 256 * 176;
    case Format::Q6_K: return n / 256 * 210;
    case Format::MXFP4: return n / 32 * 17;
  }
  return 0;
}

void pack_rows(Format format, const uint8_t* raw, int cols, const int32_t* source_row, int rows, uint8_t* out) {
  const Layout layout = layout_of(format);
  const size_t row_bytes = stored_row_bytes(format, cols);
  const int code_bytes = kRows * kBlock * layout.bits / 8;
  Decoded d[kRows];
  for (int group = 0; group < rows / kRows; group++) {
    for (int block = 0; block < cols / kBlock; block++, out += layout.block_bytes()) {
      for (int r = 0; r < kRows; r++) {
        int source = source_row[group * kRows + r];
        if (source >= 0) {
          decode(format, raw + row_bytes * static_cast<size_t>(source), block, d[r]);
        } else {
          std::memset(d[r].code, layout.offset, kBlock);
          d[r].scale[0] = d[r].scale[1] = d[r].minimum = 0;
        }
      }
      std::memset(out, 0, static_cast<size_t>(code_bytes));
      for (int g = 0; g < 8; g++)
        for (int r = 0; r < kRows; r++)
          for (int c = 0; c < 4; c++) set_code(out, layout.bits, g, r * 4 + c, d[r].code[g * 4 + c]);
      uint16_t* tail = reinterpret_cast<uint16_t*>(out + code_bytes);
      for (int r = 0; r < kRows; r++) tail[r] = float_to_half(d[r].scale[0]);
      if (layout.halves)
        for (int r = 0; r < kRows; r++) tail[kRows + r] = float_to_half(d[r].scale[1]);
      if (layout.minima)
        for (int r = 0; r < kRows; r++) tail[kRows * (1 + layout.halves) + r] = float_to_half(d[r].minimum);
    }
  }
}

void unpack_row(const Matrix& m, int row, float* out) {
  const Layout& layout = m.layout;
  const uint8_t* p = m.data + m.group_bytes() * (row / kRows);
  const int r = row % kRows, code_bytes = kRows * kBlock * layout.bits / 8;
  for (int block = 0; block < m.cols / kBlock; block++, p += layout.block_bytes()) {
    const uint16_t* tail = reinterpret_cast<const uint16_t*>(p + code_bytes);
    float scale[2] = {half_to_float_scalar(tail[r]), 0};
    scale[1] = layout.halves ? half_to_float_scalar(tail[kRows + r]) : scale[0];
    float minimum = layout.minima ? half_to_float_scalar(tail[kRows * (1 + layout.halves) + r]) : 0;
    for (int i = 0; i < kBlock; i++) {
      int g = i / 4, at = r * 4 + i % 4;
      const int code = code_at(p, layout.bits, g, at);
      out[block * kBlock + i] = scale[i / 16] * static_cast<float>(code - layout.offset) + minimum;
    }
  }
}

}  // namespace pentad
