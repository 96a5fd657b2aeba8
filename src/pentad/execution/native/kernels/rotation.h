// The cosines and sines of one kind of RoPE, by position; and how dual chunks turn queries further.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "native.h"
#include "simd.h"

namespace pentad {

// Turns pairs (i, i + half) of x by [cosines, sines].
inline void rotate_pairs(int half, const float* turn, float* x) {
  int i = 0;
  for (; i + 16 <= half; i += 16) {
    const f32x16 a = load(x + i), b = load(x + i + half), cosine = load(turn + i), sine = load(turn + half + i);
    store(x + i, a * cosine - b * sine);
    store(x + i + half, a * sine + b * cosine);
  }
  for (; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = a * turn[i] - b * turn[half + i];
    x[i + half] = a * turn[half + i] + b * turn[i];
  }
}

class Rotation {
 public:
  explicit Rotation(const pentad_rotation& r)
      : dim_(r.dim), length_(r.length), reach_(r.reach), magnitude_(r.magnitude),
        frequencies_(r.inverse_frequencies, r.inverse_frequencies + r.dim / 2) {
    if (length_) write(length_, ahead_), write(reach_ - 1, last_);
  }

  // Elements of a head that are turned: i with i + dim / 2.
  int dim() const { return dim_; }
  // Radians by which pair i turns from token to token.
  float frequency(int i) const { return frequencies_[static_cast<size_t>(i)]; }
  // Tokens of a chunk; 0: positions are as they are.
  int length() const { return length_; }
  // [cosines, sines] of a position that grow() has reached; of its place in its chunk, where there are chunks.
  const float* at(int position) const { return table_.data() + static_cast<size_t>(place(position)) * static_cast<size_t>(dim_); }
  // Computes those of positions [known, limit).
  void grow(int known, int limit) {
    if (length_) known = std::min(known, length_), limit = std::min(limit, length_);
    table_.resize(std::max(table_.size(), static_cast<size_t>(limit) * static_cast<size_t>(dim_)));
    for (int p = known; p < limit; p++) write(p, table_.data() + static_cast<size_t>(p) * static_cast<size_t>(dim_));
  }
  // Turns a query, which is turned by its place in its chunk, on to what it asks the chunk before, min(place + length,
  // reach - 1), or with `earlier` all in front of that, reach - 1.
  void turn_on(int position, bool earlier, float* x) const {
    const int half = dim_ / 2;
    const bool within = !earlier && place(position) + length_ < reach_;
    const float *to = within ? ahead_.data() : last_.data(), *from = at(position);
    float by[256];  // heads that are turned have at most so many numbers
    // Both hold the magnitude as a factor, which x has once.
    const float once = static_cast<float>(1.0 / magnitude_), twice = once * once;
    for (int i = 0; i < half; i++) {
      by[i] = within ? to[i] * once : (to[i] * from[i] + to[half + i] * from[half + i]) * twice;
      by[half + i] = within ? to[half + i] * once : (to[half + i] * from[i] - to[i] * from[half + i]) * twice;
    }
    rotate_pairs(half, by, x);
  }

 private:
  int place(int position) const { return length_ ? position % length_ : position; }
  void write(int position, std::vector<float>& turn) const {
    turn.resize(static_cast<size_t>(dim_));
    write(position, turn.data());
  }
  void write(int position, float* turn) const {
    const int half = dim_ / 2;
    for (int i = 0; i < half; i++) {
      const double angle = static_cast<double>(position) * static_cast<double>(frequency(i));
      turn[i] = static_cast<float>(std::cos(angle) * magnitude_);
      turn[half + i] = static_cast<float>(std::sin(angle) * magnitude_);
    }
  }

  int dim_, length_, reach_;
  double magnitude_;
  std::vector<float> frequencies_, table_, ahead_, last_;  // turns by `length_` and by the last position
};

}  // namespace pentad
