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

struct LayerWeights {
  Weights q, k, v, o, gate, up, down;
  std::vector<float> attn_norm, ffn_norm, q_bias, k_bias, v_bias, q_norm, k_norm;

  std::array<const Weights*, 7> matrices() const { return {&q, &k, &v, &o, &gate, &up, &down}; }
};

class ModelWeights {
 public:
  ModelWeights(const pentad_config& c, Team& team) : layers(static_cast<size_t>(c.layers)), c_(c), team_(team) {}

  // 0, or -1 when the shape or format is not supported; see native.h.
  int set(int tensor, int layer, Format format, const uint8_t* data, int rows, int cols, bool interleaved);
  int pack(Format format, const uint8_t* data, int rows, int cols, bool interleaved, uint8_t* out);
  int attach(int tensor, int layer, Format format, int rows, int cols, const uint8_t* packed);
  // Whether everything is there that a step reads.
  bool complete() const;
  size_t bytes() const;
  // The weights of a norm, or null where the model has none of that name.
  const std::vector<float>* norm(int tensor, int layer) const;
  const Matrix& head_matrix() const { return head.matrix.data ? head.matrix : embed.matrix; }

  std::vector<LayerWeights> layers;
  Weights embed, head;
  std::vector<float> final_norm;

 private:
  int paired_row(int r) const;
  std::vector<float> unpair(const std::vector<float>& v) const;
  Weights& matrix_of(int tensor, int layer);
  std::vector<float>* vector_of(int tensor, int layer);

  const pentad_config& c_;
  Team& team_;
};

}  // namespace pentad
