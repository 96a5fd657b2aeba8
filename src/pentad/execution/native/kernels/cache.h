// The KV cache of a decoder in blocks of 16 tokens (pages.h says how a block of one head lies), what its slots
// were attended to with, and the rotations of RoPE that its keys stand in.
#pragma once
#include <vector>

#include "memory.h"
#include "native.h"
#include "pages.h"
#include "rotation.h"
#include "states.h"
#include "threads.h"
#include "weights.h"

namespace pentad {

class KvCache {
 public:
  KvCache(const pentad_config& c, Team& team)
      : c_(c),
        team_(team),
        places_(places(c)),
        kv_(kv_block_bytes() * static_cast<size_t>(c.num_blocks)),
        tallies_(tallies_of_block() * sizeof(Tally) * static_cast<size_t>(c.num_blocks)),
        rotations_(c.rotations, c.rotations + c.rotation_count),
        centres_(static_cast<size_t>(c.layers)) {}

  KvForm form() const { return {c_.key_bits, c_.value_bits}; }
  bool coded() const { return form().coded(); }
  size_t head_size() const { return head_bytes(c_.head_dim, form(), c_.shared_values); }
  // Heads of all layers that keep keys and values.
  int heads() const { return (places_.empty() ? 0 : places_.back()) * c_.kv_heads; }
  // The number of one of them.
  int number(int layer, int head) const { return places_[static_cast<size_t>(layer)] * c_.kv_heads + head; }
  size_t kv_block_bytes() const { return static_cast<size_t>(heads()) * head_size(); }
  // KV and tallies.
  size_t block_bytes() const { return kv_block_bytes() + tallies_of_block() * sizeof(Tally); }
  // One layer and head of a block. All of a block lies together, so that memory is taken as blocks come
  // into use.
  uint8_t* head(int layer, int head, int block) const {
    return kv_.data() + kv_block_bytes() * static_cast<size_t>(block) +
           static_cast<size_t>(number(layer, head)) * head_size();
  }
  size_t tallies_of_block() const {
    return c_.attention_scores ? static_cast<size_t>(heads()) : 0;
  }
  // Of one layer and head, counted through, of a block; meaningless where none are kept.
  Tally* tallies(int number, int block) const {
    return reinterpret_cast<Tally*>(tallies_.data()) + tallies_of_block() * static_cast<size_t>(block) + number;
  }
  Pages pages_of(const int32_t* table, int layer, int head) const;
  // Of one head, counted through over all layers, of a sequence whose heads have tables of their own.
  Pages pages_by_head(const int32_t* table) const;
  int64_t pages() const { return static_cast<int64_t>(c_.num_blocks) * heads(); }
  uint8_t* page(int64_t number) const { return kv_.data() + head_size() * static_cast<size_t>(number); }
  Tally* page_tally(int64_t number) const { return reinterpret_cast<Tally*>(tallies_.data()) + number; }
  KeyCentre centre_of(int layer, int head) const;
  // A rotation by its number, or null for -1.
  const Rotation* rotation(int number) const { return number < 0 ? nullptr : &rotations_[static_cast<size_t>(number)]; }
  // Computes the rotations of positions [0, limit), once.
  void grow(int limit);
  // Whether keys of any layer are kept less what they share, by position.
  bool centred() const;
  // Takes the bias of a layer's keys, which are kept less what they share, and the number of their rotation.
  void centre(int layer, const LayerWeights& weights, int rotation);

  int copy_block(int source, int target);
  // Where a block's keys and values lie, of all layers; null for one out of range.
  uint8_t* block_data(int block);
  int copy_slots(const int32_t* pairs, int count);
  int move_entries(const int64_t* pairs, int count);
  int page_scores(const int32_t* pages, int count, double* out) const;
  // The keys and values of one block as attention reads them, were it block `place` of its text.
  int read_block(int layer, int head, int block, int place, uint16_t* out);

 private:
  // How many layers in front of each keep keys and values, and how many there are.
  static std::vector<int> places(const pentad_config& c);
  size_t centres_size() const { return static_cast<size_t>(c_.head_dim) * kPage * 2; }
  size_t centres_stride() const { return centres_size() * static_cast<size_t>(c_.layers) * static_cast<size_t>(c_.kv_heads); }
  const uint16_t* centres_at(int layer, int head) const;
  std::vector<float> slow_part(std::vector<float> bias, const Rotation* rotation) const;

  const pentad_config& c_;
  Team& team_;
  std::vector<int> places_;                  // [layers + 1]
  Arena kv_, tallies_;
  std::vector<Rotation> rotations_;
  int known_ = 0;                            // positions whose rotations are known
  Aligned<uint16_t> centre_pages_;           // write_centres() of [256 tokens][layer][head]
  struct Centre {
    std::vector<float> bias;                 // slow_part() of the bias of keys, or empty
    const Rotation* rotation = nullptr;
  };
  std::vector<Centre> centres_;              // [layers]
};

}  // namespace pentad
