#include "states.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace pentad {

// Whether such a state can be kept.
static bool possible(const pentad_mixer& m) {
  if (m.conv < 1 || m.conv > kMostTaps || m.channels < 1 || m.channels % 16) return false;
  return m.kind == PENTAD_CONVOLUTION || (m.heads > 0 && m.groups > 0 && m.heads % m.groups == 0 && m.key_dim > 0 &&
                                          m.value_dim > 0 && m.norm_groups > 0);
}

States::States(const pentad_config& c) {
  for (int i = 0; i < c.layers; i++) {
    const pentad_mixer& m = c.mixers[i];
    if (keeps_state(m.kind) && !possible(m)) throw std::invalid_argument("mixer");
    places_.push_back(size_);
    if (keeps_state(m.kind)) size_ += static_cast<size_t>(m.conv - 1) * static_cast<size_t>(m.channels);
    matrices_.push_back(size_);
    if (keeps_state(m.kind) && m.kind != PENTAD_CONVOLUTION)
      size_ += static_cast<size_t>(m.heads) * static_cast<size_t>(m.value_dim) * static_cast<size_t>(m.key_dim);
  }
  // A convolution over the token alone keeps nothing, but has a row like all others.
  if (!size_ && std::any_of(c.mixers, c.mixers + c.layers, [](const pentad_mixer& m) { return keeps_state(m.kind); }))
    size_ = 16;
}

// Whether a step may name a row once more.
bool States::name(int row) {
  if (row < 0 || row >= kMostRows) return false;
  if (static_cast<size_t>(row) >= named_.size()) named_.resize(static_cast<size_t>(row) + 1);
  return std::exchange(named_[static_cast<size_t>(row)], checks_) != checks_;
}

int States::check(const pentad_batch& b) {
  if (!any()) return 0;
  checks_++;
  if (!b.state_rows || b.save_count < 0 || (b.save_count && !b.state_saves)) return 11;
  if (b.drafted || b.tree_slots) return 7;  // a state cannot be taken back
  if (!std::all_of(b.state_rows, b.state_rows + b.sequences, [&](int row) { return name(row); })) return 11;
  for (int i = 0, last = 0, before = 0; i < b.save_count; i++) {
    const int s = b.state_saves[3 * i], at = b.state_saves[3 * i + 1];
    if (s < last || s >= b.sequences || at <= (s == last ? before : 0) || at > b.starts[s + 1] - b.starts[s]) return 11;
    if (!name(b.state_saves[3 * i + 2])) return 11;
    last = s, before = at;
  }
  return 0;
}

void States::take(int row) {
  if (static_cast<size_t>(row) >= rows_.size()) rows_.resize(static_cast<size_t>(row) + 1);
  if (!rows_[static_cast<size_t>(row)]) rows_[static_cast<size_t>(row)] = std::make_unique<Arena>(size_ * sizeof(float));
}

void States::reserve(const pentad_batch& b) {
  if (!any()) return;
  for (int s = 0; s < b.sequences; s++) take(b.state_rows[s]);
  for (int i = 0; i < b.save_count; i++) take(b.state_saves[3 * i + 2]);
}

int States::copy(int source, int target) {
  if (!any() || std::min(source, target) < 0 || std::max(source, target) >= kMostRows) return -1;
  take(source), take(target);
  std::copy_n(data(source), size_, data(target));
  return 0;
}

}  // namespace pentad
