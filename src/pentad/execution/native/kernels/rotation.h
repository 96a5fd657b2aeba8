// The cosines and sines of one kind of RoPE, by position.
#pragma once
#include <cmath>
#include <vector>

#include "native.h"

namespace pentad {

class Rotation {
 public:
  explicit Rotation(const pentad_rotation& r)
      : dim_(r.dim), magnitude_(r.magnitude), frequencies_(r.inverse_frequencies, r.inverse_frequencies + r.dim / 2) {}

  // Elements of a head that are turned: i with i + dim / 2.
  int dim() const { return dim_; }
  // Radians by which pair i turns from token to token.
  float frequency(int i) const { return frequencies_[static_cast<size_t>(i)]; }
  // [cosines, sines] of a position that grow() has reached.
  const float* at(int position) const { return table_.data() + static_cast<size_t>(position) * static_cast<size_t>(dim_); }
  // Computes those of positions [known, limit).
  void grow(int known, int limit) {
    table_.resize(static_cast<size_t>(limit) * static_cast<size_t>(dim_));
    const int half = dim_ / 2;
    for (int p = known; p < limit; p++) {
      float* turn = table_.data() + static_cast<size_t>(p) * static_cast<size_t>(dim_);
      for (int i = 0; i < half; i++) {
        const double angle = static_cast<double>(p) * static_cast<double>(frequency(i));
        turn[i] = static_cast<float>(std::cos(angle) * magnitude_);
        turn[half + i] = static_cast<float>(std::sin(angle) * magnitude_);
      }
    }
  }

 private:
  int dim_;
  double magnitude_;
  std::vector<float> frequencies_, table_;
};

}  // namespace pentad
