// Drawing tokens from logits: the order of operations and the generator of execution/sampling.py.
#pragma once
#include <cstdint>
#include <vector>

#include "native.h"

namespace pentad {

// Scratch of one thread and the draw itself. Sums run in double precision; they may differ from the
// reference's in the last bits, so a draw differs only where the goal lies that close to a boundary.
class Sampler {
 public:
  // Draws from one row of `vocab` logits, which stay as they are. `alternative_tokens` and
  // `alternative_logprobs` hold row.alternatives entries where that is positive.
  pentad_drawn draw(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared) noexcept;

 private:
  struct Candidate {
    float score;
    int32_t token;
    double weight;
  };

  pentad_drawn drawn(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared);
  const float* adjusted(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared);
  bool find_peaks(const float* scores, int vocab, float& top);
  int first_at(const float* scores, int vocab, float value) const;
  void take_top(const float* scores, int vocab, int count);
  int sample(const float* scores, int vocab, float top, const pentad_draw_row& row);
  int draw_all(int vocab, double chance);
  int draw_found(double chance);
  double weigh_all(const float* scores, int vocab, float top, const pentad_draw_row& row);
  void weigh_found(float top, const pentad_draw_row& row);
  void keep_nucleus(double goal);
  void nucleus_of_all(const float* scores, int vocab, double goal);
  void log_probabilities(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared,
                         pentad_drawn& drawn);

  std::vector<float> scores_, peaks_, order_;
  std::vector<double> weights_, sums_;
  std::vector<Candidate> found_;
};

// Philox4x64-10 as numpy counts: key (seed, choice), counter (position, 0, 0, 0); in [0, 1).
double uniform(uint64_t seed, uint64_t choice, uint64_t position);

}  // namespace pentad
