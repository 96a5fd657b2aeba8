// What layers without a cache keep of sequences: the last inputs of their convolutions, and a matrix per head.
//
// A row holds the states of all layers of one sequence, or of a snapshot. Memory is taken when a row is first named.
#pragma once
#include <memory>
#include <vector>

#include "memory.h"
#include "native.h"

namespace pentad {

constexpr int kMostTaps = 16;  // tokens that a convolution sees

inline bool attends(int mixer) { return mixer == PENTAD_ATTENTION || mixer == PENTAD_LATENT; }
inline bool keeps_state(int mixer) { return mixer != PENTAD_NO_MIXER && !attends(mixer); }

// Columns of what a mixer gives its last matrix.
inline int mixed_columns(const pentad_mixer& m) {
  switch (m.kind) {
    case PENTAD_NO_MIXER: return 0;
    case PENTAD_CONVOLUTION: return m.channels;
    case PENTAD_LATENT: return m.heads * m.out_dim;
    default: return m.heads * m.value_dim;
  }
}

class States {
 public:
  explicit States(const pentad_config& c);

  // Whether any layer keeps one.
  bool any() const { return size_ > 0; }
  // What is wrong with the rows that a batch names, or 0; see native.h.
  int check(const pentad_batch& b);
  // Takes the memory of these rows.
  void reserve(const pentad_batch& b);
  int copy(int source, int target);

  // [conv - 1][channels], the oldest first.
  float* conv(int layer, int row) const { return data(row) + places_[static_cast<size_t>(layer)]; }
  // [heads][value_dim / 16][key_dim][16]
  float* matrix(int layer, int row) const { return data(row) + matrices_[static_cast<size_t>(layer)]; }

 private:
  static constexpr int kMostRows = 1 << 16;

  float* data(int row) const { return reinterpret_cast<float*>(rows_[static_cast<size_t>(row)]->data()); }
  void take(int row);
  bool name(int row);

  size_t size_ = 0;                        // numbers of a row
  std::vector<size_t> places_, matrices_;  // [layers] where in a row they begin
  std::vector<std::unique_ptr<Arena>> rows_;
  std::vector<uint64_t> named_;            // by row: the check that named it last
  uint64_t checks_ = 0;
};

// Calls use(begin, end, row) for the tokens of sequence `s` in parts, behind each of which the state is saved to `row`,
// or not at all, -1; `save` is the next of the batch's saves, which is moved.
template <typename Use>
void each_part(const pentad_batch& b, int s, int& save, Use&& use) {
  const int end = b.starts[s + 1];
  int begin = b.starts[s];
  for (; save < b.save_count && b.state_saves[3 * save] == s; save++) {
    const int to = b.starts[s] + b.state_saves[3 * save + 1];
    use(begin, to, b.state_saves[3 * save + 2]);
    begin = to;
  }
  if (begin < end) use(begin, end, -1);
}

}  // namespace pentad
