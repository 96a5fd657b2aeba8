// Where the tokens of a step go in a layer with experts.
//
// Assignments, a token and one of its experts each, stand expert by expert, and within an expert by token. So
// a token's sum over its experts is added up in one order, whatever other tokens are in the step.
#pragma once
#include <algorithm>
#include <vector>

#include "input_buffer.h"
#include "native.h"
#include "weights.h"

namespace pentad {

constexpr int kRowsRouted = 4;  // rows that go through the router together; up to so many, threads share out experts

// Whether such a choice can be made.
inline bool possible(const pentad_experts& e) {
  return e.count > 0 && e.per_token > 0 && e.per_token <= e.count && e.width > 0 && e.shared_width >= 0 &&
         e.scores >= PENTAD_SOFTMAX && e.scores <= PENTAD_ONE_BY_ONE && e.groups > 0 && e.count % e.groups == 0 &&
         e.chosen_groups > 0 && e.chosen_groups <= e.groups && e.per_token <= e.chosen_groups * (e.count / e.groups);
}

// The rows of a step that go to one expert.
struct ExpertRows {
  HiddenWeights hidden;
  Matrix down;
  const float* down_bias;  // or null
  const int32_t* rows;     // assignments; null: all tokens
  int count;
  int first;               // its first row among the hidden ones
  bool shared;
  int32_t expert;          // its number; -1: shared
};

// What a thread knows of the choice, and where it works on it.
struct RoutingScratch {
  std::vector<float> rows;      // [kRowsRouted][width], normalised
  std::vector<float> ranked;    // [experts]
  std::vector<float> scores;    // likewise
  std::vector<float> marks;     // of groups of experts
  std::vector<int32_t> chosen;  // [kRowsRouted][per token], of a step of so few
  std::vector<float> weight;    // likewise
  std::vector<float> share;     // [kRowsRouted]
  std::vector<int32_t> starts;  // [experts + 1]
  std::vector<int32_t> order;   // [tokens][per token] assignments, expert by expert
  std::vector<ExpertRows> parts;
  InputBuffer gathered;         // inputs of one expert
};

struct Routing {
  std::vector<float> scores;      // [tokens][experts]
  std::vector<int32_t> chosen;    // [tokens][per token]
  std::vector<float> weight;      // likewise
  std::vector<float> share;       // [tokens] weight of the shared experts
  InputBuffer inputs;             // of every token
  InputBuffer hidden;             // of every assignment, and of every token where there are shared experts
  std::vector<RoutingScratch> scratch;
  uint64_t bytes_read = 0;

  // Makes ready for layers with such experts.
  void take(const pentad_experts& e) {
    count_ = std::max(count_, e.count);
    per_token_ = std::max(per_token_, e.per_token);
    width_ = std::max({width_, e.width, e.shared_width});
    shared_ = shared_ || e.shared_width;
  }
  void reserve(size_t tokens, int width, int threads) {
    if (!count_) return;
    const size_t k = static_cast<size_t>(per_token_), x = static_cast<size_t>(count_);
    scores.resize(tokens * x);
    chosen.resize(tokens * k);
    weight.resize(tokens * k);
    share.resize(tokens);
    inputs.reserve(tokens, width, false);
    hidden.reserve(tokens * (k + shared_), width_, false);
    scratch.resize(static_cast<size_t>(threads));
    for (RoutingScratch& own : scratch) {
      own.rows.resize(static_cast<size_t>(kRowsRouted) * static_cast<size_t>(width));
      own.ranked.resize(x);
      own.scores.resize(x);
      own.marks.resize(x);
      own.chosen.resize(kRowsRouted * k);
      own.weight.resize(kRowsRouted * k);
      own.share.resize(kRowsRouted);
      own.starts.resize(x + 1);
      own.order.resize(tokens * k);
      own.parts.reserve(x + 1);
      own.gathered.reserve(tokens, width, false);
    }
  }
  // What of it a thread reads in a step of so many tokens. Of few, each thread has chosen for itself, which costs
  // less than a barrier.
  const int32_t* chosen_of(int tokens, int rank) const { return few(tokens) ? own(rank).chosen.data() : chosen.data(); }
  const float* weight_of(int tokens, int rank) const { return few(tokens) ? own(rank).weight.data() : weight.data(); }
  const float* share_of(int tokens, int rank) const { return few(tokens) ? own(rank).share.data() : share.data(); }
  static bool few(int tokens) { return tokens <= kRowsRouted; }
  RoutingScratch& own(int rank) { return scratch[static_cast<size_t>(rank)]; }
  const RoutingScratch& own(int rank) const { return scratch[static_cast<size_t>(rank)]; }

 private:
  int count_ = 0, per_token_ = 0, width_ = 0;
  bool shared_ = false;
};

}  // namespace pentad
