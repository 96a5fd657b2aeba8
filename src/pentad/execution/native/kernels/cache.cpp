#include "cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace pentad {

std::vector<int> KvCache::places(const pentad_config& c) {
  std::vector<int> found{0};
  for (int layer = 0; layer < c.layers; layer++) found.push_back(found.back() + attends(c.mixers[layer].kind));
  return found;
}

Pages KvCache::pages_of(const int32_t* table, int layer, int head) const {
  return {.table = table, .base = this->head(layer, head, 0), .stride = kv_block_bytes(), .dim = c_.head_dim,
          .form = form(), .centres = centres_at(layer, head), .centres_stride = centres_stride(),
          .tallies = tallies_of_block() ? tallies(number(layer, head), 0) : nullptr,
          .tallies_stride = tallies_of_block(), .shared = c_.shared_values};
}

Pages KvCache::pages_by_head(const int32_t* table) const {
  return {.table = table, .base = kv_.data(), .stride = head_size(), .dim = c_.head_dim, .form = form(),
          .tallies = tallies_of_block() ? page_tally(0) : nullptr, .tallies_stride = 1};
}

KeyCentre KvCache::centre_of(int layer, int head) const {
  const Centre& centre = centres_[static_cast<size_t>(layer)];
  if (centre.bias.empty()) return {};
  return {.bias = centre.bias.data() + head * c_.head_dim, .rotation = centre.rotation, .dim = c_.head_dim,
          .rotated = coded()};
}

const uint16_t* KvCache::centres_at(int layer, int head) const {
  if (centre_pages_.empty() || centres_[static_cast<size_t>(layer)].bias.empty()) return nullptr;
  return centre_pages_.data() + centres_size() * (static_cast<size_t>(layer) * c_.kv_heads + head);
}

// A bias of keys without the pairs that turn much within a block.
std::vector<float> KvCache::slow_part(std::vector<float> bias, const Rotation* rotation) const {
  const int half = rotation ? rotation->dim() / 2 : 0;
  for (size_t at = 0; at < bias.size(); at += static_cast<size_t>(c_.head_dim))
    for (int i = 0; i < half; i++)
      if (rotation->frequency(i) >= kSlow) bias[at + i] = bias[at + half + i] = 0.0f;
  return bias;
}

void KvCache::centre(int layer, const LayerWeights& weights, int rotation) {
  // Keys that are normalised behind their bias share none of it.
  if (!c_.key_centres || !weights.k_norm.empty()) return;
  const Rotation* turned = this->rotation(rotation);
  centres_[static_cast<size_t>(layer)] = {slow_part(weights.k_bias, turned), turned};
}

bool KvCache::centred() const {
  return std::any_of(centres_.begin(), centres_.end(), [](const Centre& centre) { return !centre.bias.empty(); });
}

void KvCache::grow(int limit) {
  const int known = known_;
  if (limit <= known) return;
  limit = pad(limit, 256);
  constexpr int kSpanned = kPage * kPage;  // tokens of one page of centres
  const bool centred = this->centred();
  if (centred) centre_pages_.resize(centres_stride() * static_cast<size_t>(limit / kSpanned));
  for (Rotation& rotation : rotations_) rotation.grow(known, limit);
  known_ = limit;
  if (!centred) return;
  for (int page = known / kSpanned; page < limit / kSpanned; page++)
    for (int layer = 0; layer < c_.layers; layer++)
      for (int head = 0; head < c_.kv_heads && !centres_[static_cast<size_t>(layer)].bias.empty(); head++)
        write_centres(centre_of(layer, head), page * kPage,
                      centre_pages_.data() + centres_stride() * static_cast<size_t>(page) +
                          centres_size() * (static_cast<size_t>(layer) * c_.kv_heads + head));
}

int KvCache::copy_block(int source, int target) {
  for (int block : {source, target})
    if (block < 0 || block >= c_.num_blocks) return -1;
  if (source == target || !kv_block_bytes()) return 0;  // no layer attends: blocks hold nothing
  std::memcpy(kv_.data() + kv_block_bytes() * static_cast<size_t>(target),
              kv_.data() + kv_block_bytes() * static_cast<size_t>(source), kv_block_bytes());
  std::copy_n(tallies(0, source), tallies_of_block(), tallies(0, target));
  return 0;
}

uint8_t* KvCache::block_data(int block) {
  if (block < 0 || block >= c_.num_blocks || !kv_block_bytes()) return nullptr;
  return kv_.data() + kv_block_bytes() * static_cast<size_t>(block);
}

int KvCache::page_scores(const int32_t* pages, int count, double* out) const {
  if (!tallies_of_block() || std::any_of(pages, pages + count, [&](int page) { return page < 0 || page >= this->pages(); }))
    return -1;
  for (int i = 0; i < count; i++)
    for (int slot = 0; slot < kPage; slot++) *out++ = page_tally(pages[i])->at(slot);
  return 0;
}

int KvCache::move_entries(const int64_t* pairs, int count) {
  for (int64_t i = 0; i < 2 * static_cast<int64_t>(count); i++)
    if (pairs[i] < 0 || pairs[i] / kPage >= pages()) return -1;
  const size_t room = static_cast<size_t>((count + kPage - 1) / kPage);
  std::vector<uint8_t> read(room * head_size());
  std::vector<uint64_t> scores(tallies_of_block() ? static_cast<size_t>(count) : 0);
  auto place = [&](int k) { return read.data() + static_cast<size_t>(k / kPage) * head_size(); };
  team_.run([&](int rank) {
    auto [begin, end] = share_of(count, rank, team_.active());
    for (int k = begin; k < end; k++) {
      const int64_t from = pairs[2 * k];
      copy_slot(page(from / kPage), static_cast<int>(from % kPage), place(k), k % kPage, c_.head_dim, form(), c_.shared_values);
      if (!scores.empty()) scores[static_cast<size_t>(k)] = page_tally(from / kPage)->slot[from % kPage];
    }
    team_.barrier();
    for (int k = begin; k < end; k++) {
      const int64_t to = pairs[2 * k + 1];
      copy_slot(place(k), k % kPage, page(to / kPage), static_cast<int>(to % kPage), c_.head_dim, form(), c_.shared_values);
      if (!scores.empty()) page_tally(to / kPage)->slot[to % kPage] = scores[static_cast<size_t>(k)];
    }
  });
  return 0;
}

int KvCache::copy_slots(const int32_t* pairs, int count) {
  for (int64_t i = 0; i < 2 * static_cast<int64_t>(count); i++)
    if (pairs[i] < 0 || pairs[i] / kPage >= c_.num_blocks) return -1;
  team_.run([&](int rank) {
    auto [begin, end] = share_of(heads(), rank, team_.active());
    const auto place = [&](int i, int slot) {
      return kv_.data() + kv_block_bytes() * static_cast<size_t>(slot / kPage) + head_size() * static_cast<size_t>(i);
    };
    for (int i = begin; i < end; i++)
      for (int k = 0; k < count; k++) {
        const int from = pairs[2 * k], to = pairs[2 * k + 1];
        copy_slot(place(i, from), from % kPage, place(i, to), to % kPage, c_.head_dim, form(), c_.shared_values);
        if (tallies_of_block())
          tallies(i, to / kPage)->slot[to % kPage] = tallies(i, from / kPage)->slot[from % kPage];
      }
  });
  return 0;
}

int KvCache::read_block(int layer, int head, int block, int place, uint16_t* out) {
  if (c_.shared_values) return -1;
  if (layer < 0 || layer >= c_.layers || number(layer, 0) == number(layer + 1, 0) || head < 0 || head >= c_.kv_heads || block < 0 || block >= c_.num_blocks) return -1;
  if (place < 0 || place >= (c_.max_context + kPage - 1) / kPage) return -1;
  grow((place + 1) * kPage);
  const std::vector<int32_t> table(static_cast<size_t>(place) + 1, block);
  const Pages pages = pages_of(table.data(), layer, head);
  if (coded()) pages.unpacked(place, 1, out);
  else std::memcpy(out, pages.block(place), head_size());
  const KeyCentre centre = centre_of(layer, head);
  if (!centre.bias) return 0;
  float middle[kMostDim];
  centre.at(place, middle);
  for (int d = 0; d < c_.head_dim; d++)
    for (int i = 0; i < kPage; i++) {
      uint16_t& kept = out[(d / 2 * kPage + i) * 2 + d % 2];
      kept = to_bf16(std::bit_cast<float>(static_cast<uint32_t>(kept) << 16) + middle[d]);
    }
  return 0;
}

}  // namespace pentad
