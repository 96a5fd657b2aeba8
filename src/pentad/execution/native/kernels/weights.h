// The weights of a decoder as its ops read them: packed matrices, and vectors of floats.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "memory.h"
#include "native.h"
#include "pack.h"
#include "threads.h"

namespace pentad {

struct Weights {
  Matrix matrix;
  std::unique_ptr<Arena> memory;  // null: attached, it lies elsewhere
};

struct NormWeights {
  std::vector<float> scale, shift;  // no shift: empty
};

struct LayerWeights {
  Weights q, k, v, o, gate, up, down, attn_gate;
  NormWeights attn_norm, ffn_norm, attn_out_norm, ffn_out_norm;
  std::vector<float> q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias, q_norm, k_norm, sinks,
      slopes;
  // With experts, gate, up and down are those of the shared ones.
  pentad_experts experts{};  // of a count of 0: none
  Weights experts_gate, experts_up, experts_down;
  pentad_mixer mixer{};
  Weights z, step, rate, conv_in;
  Weights q_down, kv_down, k_up, v_up;
  std::vector<float> kv_norm;
  std::vector<float> conv, conv_bias, step_bias, decay, skip, inner_norm, conv_in_bias;
  std::vector<float> router, router_bias, shared_gate, experts_gate_bias, experts_up_bias, experts_down_bias;

  std::array<const Weights*, 19> matrices() const {
    return {&q, &k, &v, &o, &gate, &up, &down, &attn_gate, &experts_gate, &experts_up, &experts_down, &z, &step, &rate, &conv_in,
            &q_down, &kv_down, &k_up, &v_up};
  }
};

// What the hidden columns of a feed-forward are computed with.
struct HiddenWeights {
  Matrix gate, up;                   // no gate: no data
  const float *gate_bias, *up_bias;  // or null
  int layer = -1;                    // whose adapters add to them; -1: none do
};

class ModelWeights {
 public:
  ModelWeights(const pentad_config& c, Team& team) : layers(static_cast<size_t>(c.layers)), c_(c), team_(team) {
    for (size_t i = 0; i < layers.size(); i++) layers[i].mixer = c.mixers[i];
  }

  // 0, or -1 when the shape or format is not supported; see native.h.
  int set(int tensor, int layer, Format format, const uint8_t* data, int rows, int cols, int paired);
  int pack(Format format, const uint8_t* data, int rows, int cols, int paired, uint8_t* out);
  int attach(int tensor, int layer, Format format, int rows, int cols, const uint8_t* packed);
  size_t bytes() const;
  // The weights of a norm, or null where the model has none of that name.
  const NormWeights* norm(int tensor, int layer) const;
  const Matrix& head_matrix() const { return head.matrix.data ? head.matrix : embed.matrix; }

  std::vector<LayerWeights> layers;
  Weights embed, head, positions;
  NormWeights final_norm, embed_norm;
  std::vector<float> head_bias;  // padded to whole groups of rows

 private:
  int paired_row(int r, int paired) const;
  std::vector<float> unpair(const std::vector<float>& v, int paired) const;
  Weights* matrix_of(int tensor, int layer);
  std::vector<float>* vector_of(int tensor, int layer);

  const pentad_config& c_;
  Team& team_;
};

}  // namespace pentad
