// The C interface. One model, driven by one thread at a time; the team of threads is inside.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pentad_model pentad_model;

typedef struct {
  int32_t layers, width, heads, kv_heads, head_dim, ffn_width, vocab;
  int32_t rope_dim;
  int32_t window;            // 0: none
  int32_t qkv_bias;
  int32_t threads;
  int32_t num_blocks;        // KV blocks of 16 tokens
  int32_t max_tokens;        // tokens of a step at most
  int32_t max_context;
  float eps;
  const float* inverse_frequencies;  // [rope_dim / 2], copied
} pentad_config;

// Which matrix or vector of a layer (layer -1: of the model).
enum pentad_tensor {
  PENTAD_EMBED = 0, PENTAD_HEAD, PENTAD_FINAL_NORM,
  PENTAD_ATTN_NORM, PENTAD_Q, PENTAD_K, PENTAD_V, PENTAD_O,
  PENTAD_FFN_NORM, PENTAD_GATE, PENTAD_UP, PENTAD_DOWN,
  PENTAD_Q_BIAS, PENTAD_K_BIAS, PENTAD_V_BIAS
};

typedef struct {
  int32_t tokens, sequences, rows, table_width;
  const int32_t *token_ids, *positions, *slots;   // [tokens]
  const int32_t *starts;                          // [sequences + 1]
  const int32_t *context_lens;                    // [sequences]
  const int32_t *block_tables;                    // [sequences][table_width]
  const int32_t *logit_rows;                      // [rows]
  float* logits;                                  // [rows][vocab], or null
  int32_t* argmax;                                // [rows], or null
} pentad_batch;

pentad_model* pentad_create(const pentad_config*);
void pentad_destroy(pentad_model*);
// Repacks a stored tensor. `interleaved` un-pairs the rows of a Q or K matrix of interleaved RoPE.
// Returns 0, or -1 when the shape or format is not supported.
int pentad_set(pentad_model*, int32_t tensor, int32_t layer, int32_t format, const void* data, int32_t rows,
               int32_t cols, int32_t interleaved);
int pentad_ready(pentad_model*);  // builds fused matrices; 0 when complete
void pentad_step(pentad_model*, const pentad_batch*);
void pentad_copy_block(pentad_model*, int32_t source, int32_t target);
size_t pentad_weight_bytes(const pentad_model*);
size_t pentad_block_bytes(const pentad_model*);
const char* pentad_kernels(void);  // e.g. "avx512-vnni+amx-bf16"
void pentad_set_threads(pentad_model*, int32_t active);
void pentad_times(const pentad_model*, double* seconds /* [8] per phase since creation */);

#ifdef __cplusplus
}
#endif
