// KV blocks: how the keys and values of 16 tokens lie in memory. A block of one key/value head is
//
//   keys   [D / 2][16 tokens][2 dims]   -- a line of 32 is one bf16 dot product with a query pair
//   values [8][D][2 tokens]             -- likewise with a pair of probabilities
//
// so that scores and sums are dot products without any shuffle, and a block is an AMX tile. Elements are
// bf16, or codes (codes.h), keys and values each with their steps behind them.
//
// Of latent attention, whose values are the first numbers of the keys, a block has keys alone, in bf16.
//
// A key is kept less the centre of its block: the part that all tokens there share (KeyCentre), which would
// take most of the digits where keys have a large bias. A value is its code times its step; keys are coded
// after rotate(), which spreads a large channel over all. So what is kept of a token depends on it alone,
// may be moved, and is the same in every batch.
#pragma once
#include <array>
#include <atomic>
#include <bit>

#include "codes.h"
#include "rotation.h"

namespace pentad {

constexpr int kTailBlocks = 5;  // a begun block and a path of 64 tokens behind it
constexpr int kAheadBlocks = 4;  // fetched in front of their use

inline size_t head_bytes(int dim, KvForm form, bool shared = false) {
  return form.part_bytes(dim, false) + (shared ? 0 : form.part_bytes(dim, true));
}

inline void write_key(uint16_t* block, int dim, int offset, const float* k) {
  for (int d = 0; d < dim; d += 16, block += 8 * kPage * 2) {
    const u16x16 halves = to_bf16(load(k + d));
    uint32_t pairs[8];
    std::memcpy(pairs, &halves, sizeof pairs);
    for (int j = 0; j < 8; j++) std::memcpy(block + (j * kPage + offset) * 2, pairs + j, 4);
  }
}
inline void write_value(uint16_t* block, int dim, int offset, const float* v) {
  uint16_t* line = block + (offset / 2) * dim * 2 + offset % 2;
  for (int d = 0; d < dim; d += 16, line += 32) {
    const u16x16 halves = to_bf16(load(v + d));
    uint16_t values[16];
    std::memcpy(values, &halves, sizeof values);
    for (int i = 0; i < 16; i++) line[i * 2] = values[i];
  }
}

// Zeros for the values that a block has yet to get: their weight is 0, but what another sequence has left there may
// be NaN, which 0 times is NaN still. Scores with keys that are not there are never used.
inline void clear_values(uint8_t* block, int dim, KvForm form, bool shared = false) {
  std::memset(block + (shared ? 0 : form.part_at(dim, true)), 0, form.part_bytes(dim, !shared));
}

// Sums in the lanes whose number has no bit kStep, differences in the others.
template <int kStep>
PENTAD_INLINE f32x16 turn_lanes(f32x16 v) {
  alignas(64) constexpr auto signs = [] {
    std::array<float, 16> found{};
    for (int i = 0; i < 16; i++) found[static_cast<size_t>(i)] = i & kStep ? -1.0f : 1.0f;
    return found;
  }();
  return crossed<kStep>(v) + v * load(signs.data());
}
// Turns a vector by Hadamard matrices of the largest power of two that divides its size, which leaves
// dot products of two turned vectors as they were.
inline void rotate(float* x, int dim) {
  const int size = dim & -dim;
  const float keep = 1.0f / std::sqrt(static_cast<float>(size));
  for (int d = 0; d < dim; d += 16)
    store(x + d, turn_lanes<8>(turn_lanes<4>(turn_lanes<2>(turn_lanes<1>(load(x + d))))) * keep);
  for (int step = 16; step < size; step *= 2)
    for (int from = 0; from < dim; from += 2 * step)
      for (int d = from; d < from + step; d += 16) {
        const f32x16 a = load(x + d), b = load(x + d + step);
        store(x + d, a + b);
        store(x + d + step, a - b);
      }
}

// What the keys of a head share: the bias of the key product, which turns slowly with the position.
struct KeyCentre {
  const float* bias = nullptr;   // [D], of the pairs that turn slowly; null: none
  const Rotation* rotation = nullptr;  // null: keys are not turned
  int dim = 0;
  bool rotated = false;          // as keys to be coded are

  // The centre of the block of tokens [16 block, 16 block + 16) of a text.
  void at(int block, float* out) const {
    std::memcpy(out, bias, sizeof(float) * static_cast<size_t>(dim));
    const int half = rotation ? rotation->dim() / 2 : 0;
    const float* turn = rotation ? rotation->at(block * kPage + kPage / 2) : nullptr;
    for (int i = 0; i < half; i++) {
      out[i] = bias[i] * turn[i] - bias[i + half] * turn[half + i];
      out[i + half] = bias[i] * turn[half + i] + bias[i + half] * turn[i];
    }
    if (rotated) rotate(out, dim);
  }
};
// Centres of 16 blocks as two pages of keys, whose sum is exact to 16 bits: a query's scores with them are
// what the scores with the keys of these blocks lack.
inline void write_centres(const KeyCentre& centre, int first_block, uint16_t* out) {
  float middle[kMostDim], rest[kMostDim];
  for (int i = 0; i < kPage; i++) {
    centre.at(first_block + i, middle);
    for (int d = 0; d < centre.dim; d += 16) store(rest + d, load(middle + d) - bf16_to_float(to_bf16(load(middle + d))));
    write_key(out, centre.dim, i, middle);
    write_key(out + centre.dim * kPage, centre.dim, i, rest);
  }
}
// Radians per token below which a pair turns slowly.
constexpr float kSlow = 0.15f;

// How much the 16 slots of a block were attended to, in units of 2^-32: whole numbers, so that threads may add
// in any order.
struct Tally {
  uint64_t slot[kPage] = {};

  // Adds the weights of one query.
  void add(f32x16 weights) {
    for (int i = 0; i < kPage; i++)
      if (weights[i] > 0.0f)
        std::atomic_ref(slot[i]).fetch_add(static_cast<uint64_t>(weights[i] * 0x1p32f), std::memory_order_relaxed);
  }
  double at(int i) const { return static_cast<double>(slot[i]) * 0x1p-32; }
};

// The values [8][count][2] that are the first `count` numbers of the keys of a block.
inline void values_of_keys(const uint8_t* block, int count, uint16_t* out) {
  for (int pair = 0; pair < kPage / 2; pair++, out += count * 2)
    for (int d = 0; d < count; d += 2) {
      uint64_t both;  // two tokens' two numbers
      std::memcpy(&both, block + (d / 2 * kPage + pair * 2) * 4, 8);
      both = (both & 0xffff00000000ffffull) | (both & 0x0000ffff00000000ull) >> 16 | (both & 0x00000000ffff0000ull) << 16;
      std::memcpy(out + d * 2, &both, 8);
    }
}

// Where the blocks of one sequence and head lie.
struct Pages {
  const int32_t* table;
  const uint8_t* base;            // of this layer and head
  size_t stride;                  // bytes between blocks
  int dim;
  KvForm form{};
  const uint16_t* centres = nullptr;  // what the keys are kept without: write_centres() of every 16 blocks
  size_t centres_stride = 0;          // numbers between two of them
  Tally* tallies = nullptr;       // of this layer and head, null: none are kept
  size_t tallies_stride = 0;      // between blocks
  int shared = 0;                 // values are the first so many numbers of the keys; 0: they stand behind them
  int tail_from = INT32_MAX;      // blocks from here on lie at `tail`, one behind the other
  const uint8_t* tail = nullptr;

  const uint8_t* block(int b) const {
    if (b >= tail_from) return tail + static_cast<size_t>(b - tail_from) * head_bytes(dim, form, shared);
    return base + stride * static_cast<size_t>(table[b]);
  }
  Tally& tally(int b) const { return tallies[tallies_stride * static_cast<size_t>(table[b])]; }
  // Of blocks in bf16.
  const uint16_t* keys(int b) const { return reinterpret_cast<const uint16_t*>(block(b)); }
  const uint16_t* values(int b) const { return keys(b) + static_cast<size_t>(dim) * kPage; }

  int values_dim() const { return shared ? shared : dim; }
  // The keys of a block, or its values, as they lie in memory.
  const uint8_t* part(int b, bool of_values) const {
    return block(b) + form.part_at(dim, of_values && !shared);
  }
  // The same as a page [D * 16] of bf16, of a block of codes, or its values where these are numbers of the keys.
  void unpack(int b, bool of_values, uint16_t* out) const {
    if (shared) values_of_keys(block(b), shared, out);
    else if (of_values) unpack_values(part(b, true), dim, form.values, out);
    else unpack_keys(block(b), dim, form.keys, out);
  }
  // Blocks of codes in bf16, unpacked to `room`, [count][keys, values].
  Pages unpacked(int from, int count, uint16_t* room) const {
    const size_t page = static_cast<size_t>(dim) * kPage;
    for (int i = 0; i < count; i++) {
      unpack(from + i, false, room + 2 * page * static_cast<size_t>(i));
      unpack(from + i, true, room + 2 * page * static_cast<size_t>(i) + page);
    }
    Pages plain = *this;
    plain.form = {};
    plain.tail_from = from;
    plain.tail = reinterpret_cast<const uint8_t*>(room);
    return plain;
  }
};

inline void copy_elements(const uint16_t* from, int offset, uint16_t* to, int place, int dim) {
  for (int j = 0; j < dim / 2; j++)
    std::memcpy(to + (j * kPage + place) * 2, from + (j * kPage + offset) * 2, 2 * sizeof(uint16_t));
  const uint16_t* values = from + dim * kPage + (offset / 2) * dim * 2 + offset % 2;
  uint16_t* line = to + dim * kPage + (place / 2) * dim * 2 + place % 2;
  for (int d = 0; d < dim; d++) line[d * 2] = values[d * 2];
}
inline void copy_slot(const uint8_t* from, int offset, uint8_t* to, int place, int dim, KvForm form, bool shared = false) {
  for (int j = 0; shared && j < dim / 2; j++) std::memcpy(to + (j * kPage + place) * 4, from + (j * kPage + offset) * 4, 4);
  if (shared) return;
  if (!form.coded()) {
    copy_elements(reinterpret_cast<const uint16_t*>(from), offset, reinterpret_cast<uint16_t*>(to), place, dim);
    return;
  }
  const size_t at = form.part_at(dim, true);
  copy_code(from, offset, to, place, dim, form.keys, false);
  copy_code(from + at, offset, to + at, place, dim, form.values, true);
}

// The pages as a token of a tree sees them: the slots in front of the tree, at `first`, then those of
// `path` (bit i: slot first + i) without gaps. They are copied to `tail`, [kTailBlocks] blocks, so that
// the arithmetic, and with it the result, is that of the same text without a tree.
inline Pages along_path(const Pages& pages, int first, uint64_t path, uint8_t* tail) {
  Pages seen = pages;
  seen.tail_from = first / kPage;
  seen.tail = tail;
  const size_t bytes = head_bytes(pages.dim, pages.form, pages.shared);
  int place = first % kPage;
  clear_values(tail + bytes * static_cast<size_t>((place + std::popcount(path) - 1) / kPage), pages.dim, pages.form,
               pages.shared);
  if (place) std::memcpy(tail, pages.block(first / kPage), bytes);
  for (; path; path &= path - 1, place++) {
    const int slot = first + std::countr_zero(path);
    copy_slot(pages.block(slot / kPage), slot % kPage, tail + bytes * static_cast<size_t>(place / kPage),
              place % kPage, pages.dim, pages.form, pages.shared);
  }
  return seen;
}

}  // namespace pentad
