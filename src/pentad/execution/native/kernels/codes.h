// Keys and values in codes of 8 or 4 bits. A code depends on its token alone, so a slot may be copied as it is.
//
//   8 bits  [as in bf16, a byte a number][16 steps]            x = code * step
//   4 bits  [as in bf16, two numbers a byte][D / 32][16 steps]  x = code * step + low, of 32 numbers of a token;
//                                           [D / 32][16 lows]   code is 0 to 15
//
// Steps and lows are bf16. The two numbers of a byte stand next to each other in bf16: two of a key, or those of two
// tokens of a value.
#pragma once
#include <cmath>

#include "simd.h"

namespace pentad {

constexpr int kPage = 16;      // tokens of a KV block
constexpr int kMostDim = 640;  // numbers of a key at most: a vector of 512 and a rotated key, of latent attention
constexpr int kCodeGroup = 32;  // numbers of a token that share a step of 4-bit codes

// Bits of a cached number.
struct KvForm {
  int keys = 16, values = 16;

  bool coded() const { return keys != 16; }
  static size_t steps_bytes(int dim, int bits) {
    if (bits == 16) return 0;
    return kPage * sizeof(uint16_t) * static_cast<size_t>(bits == 8 ? 1 : 2 * dim / kCodeGroup);
  }
  static size_t page_bytes(int dim, int bits) { return static_cast<size_t>(dim * kPage * bits / 8) + steps_bytes(dim, bits); }
  // Of the keys, or the values, of 16 tokens of a head.
  size_t part_bytes(int dim, bool of_values) const { return page_bytes(dim, of_values ? values : keys); }
  // Where they begin in a block.
  size_t part_at(int dim, bool of_values) const { return of_values ? page_bytes(dim, keys) : 0; }
};

// Codes of one token, round(x / step) with step = max |x| / 127 in bf16; returns the step.
inline uint16_t code_row(const float* x, int dim, int8_t* codes) {
  f32x16 top = splat(0.0f);
  for (int d = 0; d < dim; d += 16) top = vmax(top, vabs(load(x + d)));
  const uint16_t step = to_bf16(hmax(top) / 127.0f);
  const float wide = from_bf16(step), inverse = wide > 0.0f ? 1.0f / wide : 0.0f;
  for (int d = 0; d < dim; d += 16) {
    const f32x16 scaled = vmax(vmin(load(x + d) * inverse, splat(127.0f)), splat(-127.0f));
    store_i8(codes + d, round_int(scaled));
  }
  return step;
}
// Codes of 32 numbers of one token, 0 to 15, with their step and their least number.
struct Group {
  uint16_t step, low;
};
inline Group code_group(const float* x, int8_t* codes) {
  const f32x16 a = load(x), b = load(x + 16);
  const float most = hmax(vmax(a, b)), least = -hmax(vmax(-a, -b));
  const Group group{to_bf16((most - least) / 15.0f), to_bf16(least)};
  const float step = from_bf16(group.step), low = from_bf16(group.low), inverse = step > 0.0f ? 1.0f / step : 0.0f;
  each<2>([&](auto i) PENTAD_LAMBDA {
    const f32x16 scaled = (load(x + 16 * i) - low) * inverse;
    store_i8(codes + 16 * i, round_int(vmax(vmin(scaled, splat(15.0f)), splat(0.0f))));
  });
  return group;
}

// Steps, or lows, of a part whose codes take `bytes`: number `line` of them of a token.
inline void set_step(uint8_t* part, size_t bytes, int line, int offset, uint16_t step) {
  std::memcpy(part + bytes + static_cast<size_t>(line * kPage + offset) * 2, &step, 2);
}
// Codes of a token with their steps; `put` writes the codes.
template <typename Put>
inline void code_part(uint8_t* part, int dim, int bits, int offset, const float* x, Put&& put) {
  int8_t codes[kMostDim];
  const size_t bytes = static_cast<size_t>(dim * kPage * bits / 8);
  if (bits == 8) set_step(part, bytes, 0, offset, code_row(x, dim, codes));
  const int groups = dim / kCodeGroup;
  for (int g = 0; bits == 4 && g < groups; g++) {
    const Group group = code_group(x + g * kCodeGroup, codes + g * kCodeGroup);
    set_step(part, bytes, g, offset, group.step);
    set_step(part, bytes, groups + g, offset, group.low);
  }
  put(codes);
}
inline void put_half(uint8_t& pair, bool high, int code) {
  pair = static_cast<uint8_t>(high ? (pair & 15) | code << 4 : (pair & 0xf0) | code);
}
inline void code_key(uint8_t* part, int dim, int bits, int offset, const float* k) {
  code_part(part, dim, bits, offset, k, [&](const int8_t* codes) {
    for (int j = 0; j < dim / 2; j++) {
      if (bits == 8) std::memcpy(part + (j * kPage + offset) * 2, codes + 2 * j, 2);
      else part[j * kPage + offset] = static_cast<uint8_t>(codes[2 * j] | codes[2 * j + 1] << 4);
    }
  });
}
inline void code_value(uint8_t* part, int dim, int bits, int offset, const float* v) {
  code_part(part, dim, bits, offset, v, [&](const int8_t* codes) {
    uint8_t* line = part + (offset / 2) * dim * bits / 4;
    for (int d = 0; d < dim; d++) {
      if (bits == 8) line[d * 2 + offset % 2] = static_cast<uint8_t>(codes[d]);
      else put_half(line[d], offset % 2, codes[d]);
    }
  });
}

// 16 codes as numbers.
PENTAD_INLINE f32x16 load_codes(const uint8_t* p) { return to_float(load_i8(p)); }
// a, b, a, b ...
PENTAD_INLINE f32x16 alternate(float a, float b) {
  alignas(64) const float lanes[16] = {a, b, a, b, a, b, a, b, a, b, a, b, a, b, a, b};
  return load(lanes);
}
// Each of 8 numbers twice.
PENTAD_INLINE f32x16 doubled(const float* numbers) {
  alignas(64) float lanes[16];
  for (int i = 0; i < 16; i++) lanes[i] = numbers[i / 2];
  return load(lanes);
}

PENTAD_INLINE void store_bf16(uint16_t* out, f32x16 low, f32x16 high) {
#if defined(__AVX512BF16__)
  _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
#else
  store_as(out, to_bf16(low));
  store_as(out + 16, to_bf16(high));
#endif
}
// 16 pairs of bf16: even[0], odd[0], even[1] ...
PENTAD_INLINE void store_pairs(uint16_t* out, f32x16 even, f32x16 odd) {
  const auto rounded = [](f32x16 x) PENTAD_LAMBDA {
    const u32x16 bits = (u32x16)x;
    return bits + 0x7fffu + ((bits >> 16) & 1u);
  };
  store_as(out, (rounded(even) >> 16) | (rounded(odd) & 0xffff0000u));
}
// The low or the high halves of 16 bytes as numbers.
PENTAD_INLINE f32x16 low_halves(i32x16 bytes) { return to_float(bytes & 15); }
PENTAD_INLINE f32x16 high_halves(i32x16 bytes) { return to_float((bytes >> 4) & 15); }

// Keys or values in codes as a page of bf16.
inline void unpack_keys(const uint8_t* part, int dim, int bits, uint16_t* out) {
  const uint16_t* steps = reinterpret_cast<const uint16_t*>(part + dim * kPage * bits / 8);
  if (bits == 8) {
    float each[kPage];
    store(each, load_bf16(steps));
    const f32x16 low = doubled(each), high = doubled(each + 8);
    for (int d = 0; d < dim; d += 2, part += 32, out += 32)
      store_bf16(out, load_codes(part) * low, load_codes(part + 16) * high);
    return;
  }
  for (int d = 0; d < dim; d += kCodeGroup, steps += kPage) {
    const f32x16 step = load_bf16(steps), low = load_bf16(steps + dim / kCodeGroup * kPage);
    for (int j = 0; j < kCodeGroup / 2; j++, part += kPage, out += 2 * kPage) {
      const i32x16 bytes = load_i8(part);
      store_pairs(out, low_halves(bytes) * step + low, high_halves(bytes) * step + low);
    }
  }
}
inline void unpack_values(const uint8_t* part, int dim, int bits, uint16_t* out) {
  const uint16_t* steps = reinterpret_cast<const uint16_t*>(part + dim * kPage * bits / 8);
  if (bits == 8) {
    for (int i = 0; i < kPage; i += 2) {
      const f32x16 pair = alternate(from_bf16(steps[i]), from_bf16(steps[i + 1]));
      for (int d = 0; d < dim * 2; d += 32, part += 32, out += 32)
        store_bf16(out, load_codes(part) * pair, load_codes(part + 16) * pair);
    }
    return;
  }
  const uint16_t* lows = steps + dim / kCodeGroup * kPage;
  for (int i = 0; i < kPage; i += 2)
    for (int d = 0; d < dim; d += 16, part += 16, out += 32) {
      const int at = d / kCodeGroup * kPage + i;
      const i32x16 bytes = load_i8(part);
      store_pairs(out, low_halves(bytes) * from_bf16(steps[at]) + splat(from_bf16(lows[at])),
                  high_halves(bytes) * from_bf16(steps[at + 1]) + splat(from_bf16(lows[at + 1])));
    }
}

// One token's number `offset` of a part becomes number `place` of another.
inline void copy_code(const uint8_t* from, int offset, uint8_t* to, int place, int dim, int bits, bool of_values) {
  const size_t bytes = static_cast<size_t>(dim * kPage * bits / 8);
  for (int line = 0; line < static_cast<int>(KvForm::steps_bytes(dim, bits) / (2 * kPage)); line++) {
    uint16_t step;
    std::memcpy(&step, from + bytes + (line * kPage + offset) * 2, 2);
    set_step(to, bytes, line, place, step);
  }
  if (!of_values) {
    const int size = bits / 4;  // bytes of two numbers
    for (int j = 0; j < dim / 2; j++) std::memcpy(to + (j * kPage + place) * size, from + (j * kPage + offset) * size, static_cast<size_t>(size));
    return;
  }
  const uint8_t* line = from + (offset / 2) * dim * bits / 4;
  uint8_t* target = to + (place / 2) * dim * bits / 4;
  for (int d = 0; d < dim; d++) {
    if (bits == 8) target[d * 2 + place % 2] = line[d * 2 + offset % 2];
    else put_half(target[d], place % 2, line[d] >> (offset % 2 * 4) & 15);
  }
}

}  // namespace pentad
