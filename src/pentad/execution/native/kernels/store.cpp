// The parts of the C interface that need no model: layout, sizes, checksums, draws from given logits.
#include <cstring>

#include "activations.h"
#include "native.h"
#include "pack.h"
#include "sampling.h"

extern "C" {

size_t pentad_packed_bytes(int32_t format, int32_t rows, int32_t cols) {
  pentad::Matrix m;
  m.layout = pentad::layout_of(static_cast<pentad::Format>(format));
  if (rows < 0 || cols < 0 || rows > INT32_MAX - pentad::kRows) return 0;
  m.rows = (rows + pentad::kRows - 1) / pentad::kRows * pentad::kRows;
  m.cols = cols;
  return m.bytes();
}

const char* pentad_layout(void) { return pentad::kLayoutName; }
int32_t pentad_interface(void) { return PENTAD_INTERFACE; }
int32_t pentad_struct_bytes(int32_t which) {
  constexpr size_t kBytes[] = {sizeof(pentad_config), sizeof(pentad_batch), sizeof(pentad_draw_row),
                               sizeof(pentad_drawn), sizeof(pentad_draws), sizeof(pentad_encoder_config),
                               sizeof(pentad_op), sizeof(pentad_rotation), sizeof(pentad_experts),
                               sizeof(pentad_mixer)};
  return which >= 0 && which < 10 ? static_cast<int32_t>(kBytes[which]) : -1;
}

// Eight interleaved lanes of multiply and rotate over 64-bit words, then folded: fast enough to be
// bound by memory, and any flipped bit changes it.
uint64_t pentad_checksum(const void* data, size_t bytes) {
  constexpr uint64_t kFactor = 0x9E3779B185EBCA87ull;
  const uint8_t* p = static_cast<const uint8_t*>(data);
  uint64_t lane[8];
  for (uint64_t i = 0; i < 8; i++) lane[i] = (i + 1) * kFactor;
  const auto mix = [](uint64_t state, uint64_t word) {
    state = (state ^ word) * kFactor;
    return state << 29 | state >> 35;
  };
  size_t at = 0;
  for (; at + 64 <= bytes; at += 64)
    for (size_t i = 0; i < 8; i++) {
      uint64_t word;
      std::memcpy(&word, p + at + 8 * i, 8);
      lane[i] = mix(lane[i], word);
    }
  uint64_t sum = bytes;
  for (size_t i = 0; i < 8; i++) sum = mix(sum, lane[i]);
  for (; at < bytes; at++) sum = mix(sum, p[at]);
  return sum ^ sum >> 32;
}

void pentad_activate(int32_t activation, const float* gate, const float* up, int32_t count, float* out) {
  for (int32_t i = 0; i < count; i += 16) {
    const pentad::f32x16 y = pentad::activate(pentad::load(gate + i), activation);
    pentad::store(out + i, up ? y * pentad::gated(pentad::load(up + i), activation) : y);
  }
}

int32_t pentad_draw(const float* logits, int32_t vocab, const pentad_draws* draws) {
  pentad::Sampler sampler;
  for (int32_t i = 0; i < draws->count; i++)
    draws->drawn[i] =
        sampler.draw(logits + static_cast<size_t>(i) * static_cast<size_t>(vocab), vocab, draws->rows[i], *draws);
  return 0;
}
}
