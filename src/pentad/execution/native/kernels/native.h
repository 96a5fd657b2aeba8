// The C interface. One model, driven by one thread at a time; the team of threads is inside. No exception leaves it:
// what fails for lack of memory returns null, or the number that says so.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define PENTAD_INTERFACE 17  // raise it with every change of this file; structs.py holds the same number

typedef struct pentad_model pentad_model;

// One kind of rotary positions.
typedef struct {
  int32_t dim;                       // elements of a head that are turned
  float magnitude;                   // factor of what is turned
  const float* inverse_frequencies;  // [dim / 2], copied
  int32_t length, reach;             // of dual chunks: tokens of a chunk, and positions that there are; 0: positions
                                     // are not remapped (execution/positions.py, DualChunks)
} pentad_rotation;

// How a layer mixes tokens; execution/mixers.py and recurrences.py say what each number means. Attention keeps keys and
// values of every token, LATENT one key, the others but NO_MIXER a state of each sequence.
enum pentad_mixer_kind {
  PENTAD_NO_MIXER = 0, PENTAD_ATTENTION, PENTAD_GATED_DELTA, PENTAD_MAMBA2, PENTAD_CONVOLUTION, PENTAD_LATENT
};
typedef struct {
  int32_t kind;
  int32_t heads, groups;       // heads of values, and those of keys and queries
  int32_t key_dim, value_dim;  // of a head; of LATENT: of what is kept of a token, and of the vector that it begins with
  int32_t conv, channels;      // tokens that a convolution sees; what it takes of each
  int32_t norm_groups;         // of MAMBA2: parts in which what is given is normed
  float eps;                   // of that norm; of GATED_DELTA it is one of each head, of LATENT those of both vectors
  float least_step, most_step; // of MAMBA2: between these steps are cut
  int32_t plain_dim, out_dim;  // of LATENT: of a head, numbers of a query that are not turned, and those it gives
  int32_t query_rank;          // ... of the vector that queries are made of; 0: they are made of the hidden state
} pentad_mixer;

typedef struct {
  int32_t layers, width;
  int32_t heads, kv_heads, head_dim;  // of the layers that attend, which are alike; of LATENT a head is what is kept
  int32_t ffn_width;         // of the widest layer
  int32_t vocab;
  int32_t rotation_count;
  int32_t threads;
  int32_t num_blocks;        // KV blocks of 16 tokens
  int32_t max_tokens;        // tokens of a step at most
  int32_t max_context;
  int32_t key_bits;          // of a cached number of keys: 16 (bf16); 8 or 4: codes with steps (codes.h)
  int32_t value_bits;        // ... of values; 16 if and only if key_bits is
  int32_t attention_scores;  // 1: count what every slot is attended to with; see pentad_page_scores
  int32_t key_centres;       // 1: keys are kept less what a bias gives them all, by position; 0: whole, so that they
                             // may lie anywhere, as head_pages asks
  int32_t shared_values;     // values are the first so many numbers of keys (LATENT); 0: they are kept beside them
  const pentad_rotation* rotations;  // [rotation_count], copied
  const pentad_mixer* mixers;        // [layers], copied
} pentad_config;

// Which matrix or vector of a layer (layer -1: of the model). A norm's scale has any offset of the model added.
enum pentad_tensor {
  PENTAD_EMBED = 0, PENTAD_HEAD, PENTAD_FINAL_NORM,
  PENTAD_ATTN_NORM, PENTAD_Q, PENTAD_K, PENTAD_V, PENTAD_O,
  PENTAD_FFN_NORM, PENTAD_GATE, PENTAD_UP, PENTAD_DOWN,
  PENTAD_Q_BIAS, PENTAD_K_BIAS, PENTAD_V_BIAS,
  PENTAD_Q_NORM, PENTAD_K_NORM,  // [head_dim] for every head, or [heads * head_dim] over all of them or for each
  PENTAD_O_BIAS, PENTAD_GATE_BIAS, PENTAD_UP_BIAS, PENTAD_DOWN_BIAS, PENTAD_HEAD_BIAS,
  PENTAD_FINAL_NORM_BIAS, PENTAD_ATTN_NORM_BIAS, PENTAD_FFN_NORM_BIAS,
  PENTAD_ATTN_OUT_NORM, PENTAD_ATTN_OUT_NORM_BIAS, PENTAD_FFN_OUT_NORM, PENTAD_FFN_OUT_NORM_BIAS,
  PENTAD_EMBED_NORM, PENTAD_EMBED_NORM_BIAS,
  PENTAD_POSITIONS,  // a matrix, a row for every position
  PENTAD_ATTN_GATE,  // a matrix: what attention gives is multiplied by the sigmoid of its product
  PENTAD_SINKS,      // [heads] scores that take weight and give nothing; none: there are no sinks
  PENTAD_SLOPES,     // [heads] of ALiBi: taken from a score times the distance; none: there are no distances
  // Of experts: a row for each, its bias, and the row that weighs the shared ones. The matrices of all experts are
  // one, one below the other; those of shared experts are gate, up and down.
  PENTAD_ROUTER, PENTAD_ROUTER_BIAS, PENTAD_SHARED_GATE,
  PENTAD_EXPERTS_GATE, PENTAD_EXPERTS_UP, PENTAD_EXPERTS_DOWN,
  PENTAD_EXPERTS_GATE_BIAS, PENTAD_EXPERTS_UP_BIAS, PENTAD_EXPERTS_DOWN_BIAS,
  // Of recurrences, beside Q, K, V and O: the gate of what they give; a convolution [conv][channels]; a row for each head,
  // and its bias, that tells the step; logarithms of the heads' decay; MAMBA2's factors of what goes by the state; a norm.
  PENTAD_Z, PENTAD_CONV, PENTAD_CONV_BIAS, PENTAD_STEP, PENTAD_STEP_BIAS, PENTAD_RATE, PENTAD_DECAY, PENTAD_SKIP,
  PENTAD_INNER_NORM,
  PENTAD_CONV_IN, PENTAD_CONV_IN_BIAS,  // of a short convolution: b, c and x, one below the other
  // Of latent attention, beside Q and Q_NORM: what makes both vectors, the rotated key below the second; its norm; and
  // of each head, one below the other, the transposed matrix of keys and that of values.
  PENTAD_Q_DOWN, PENTAD_KV_DOWN, PENTAD_KV_NORM, PENTAD_K_UP, PENTAD_V_UP
};

// How the tokens of a layer go to experts; execution/layers.py, Experts, says what each number means.
enum pentad_expert_scores { PENTAD_SOFTMAX = 0, PENTAD_SIGMOID, PENTAD_SOFTMAX_CHOSEN, PENTAD_ONE_BY_ONE };
typedef struct {
  int32_t count, per_token;
  int32_t width;         // inner columns of an expert
  int32_t shared_width;  // of the shared ones; 0: there are none
  int32_t scores;
  int32_t normalised;
  int32_t choice_bias;   // 1: the router's bias bears on the choice alone
  int32_t groups, chosen_groups;
  int32_t weigh_inputs;
  float weight_scale;
  float rivals_within;   // of ONE_BY_ONE
} pentad_experts;

// CLAMPED: gate * sigmoid(1.702 gate) * (up + 1), both cut at 7 (gpt-oss).
enum pentad_activation { PENTAD_GELU = 0, PENTAD_GELU_TANH, PENTAD_RELU, PENTAD_SILU, PENTAD_CLAMPED, PENTAD_RELU_SQUARED };

// What a step does, op by op. The order is the caller's (execution/program.py builds it from a ModelSpec).
enum pentad_op_kind {
  PENTAD_OP_EMBED = 0, PENTAD_OP_NORM, PENTAD_OP_QKV, PENTAD_OP_ATTEND, PENTAD_OP_OUT, PENTAD_OP_GATE_UP,
  PENTAD_OP_DOWN, PENTAD_OP_HEAD, PENTAD_OP_POSITIONS, PENTAD_OP_RENORM, PENTAD_OP_ADD, PENTAD_OP_UP,
  PENTAD_OP_ATTN_GATE, PENTAD_OP_ROUTE, PENTAD_OP_EXPERTS_IN, PENTAD_OP_EXPERTS_OUT, PENTAD_OP_CONVOLVE, PENTAD_OP_RECUR,
  PENTAD_OP_GATE_OUT, PENTAD_OP_LATENT, PENTAD_OP_LATENT_OUT
};
typedef struct {
  int32_t kind;
  int32_t layer;       // -1: of the model
  int32_t tensor;      // whose weights a norm has, the head's own included; 0: it is none
  int32_t collective;  // where the ranks of a group meet behind it: 0 nowhere, 1 to add up, 2 to put their parts
                       // together; one process has one rank
  int32_t centred;     // of a norm and of the norms of heads: 1 takes the mean off first (layer norm), 0 does not (RMS
                       // norm)
  int32_t activation;  // of gate_up and up
  int32_t rotation;    // of qkv and latent: which of the model's; of attend: the same where it has dual chunks; -1: none
  int32_t window;      // of attend: tokens that are seen; 0: all
  int32_t apart;       // of out and down: 1 leaves the result for an add, 0 adds it to the residual stream
  int32_t offset;      // of positions: the row of position 0; of qkv: what is added to a position for `growth`
  int32_t gated;       // of attend: 1 multiplies what it gives by what attn_gate has left
  int32_t chunk;       // of attend: tokens of the chunks of a text, none of which sees another; 0: there are none
  int32_t each;        // of qkv: 1 norms each head by scales of its own, 0 all heads together where there are so many
  int32_t norm_last;   // of qkv: 1 norms heads behind their rotation
  int32_t period;      // of qkv: tokens after which queries have grown; 0: they do not
  int32_t smooth;      // ... 1 between them as well
  int32_t interleaved; // of latent: 1 turns neighbours, 0 numbers that are half of `dim` apart
  float eps;           // of a norm; of qkv: of the norms of heads
  float scale;         // factor of what embed and head give, of what out, down and add bring to the stream, of scores
  float cap;           // of head and attend: logits or scores z become cap * tanh(z / cap); 0: they do not
  float clip;          // of qkv: what products give is cut at plus and minus this; 0: it is not
  float growth;        // of qkv: how much queries grow; execution/positions.py, Growth, has the formula
} pentad_op;

typedef struct {
  int32_t tokens, sequences, rows, table_width;
  const int32_t *token_ids, *positions, *slots;   // [tokens]
  const int32_t *starts;                          // [sequences + 1]
  const int32_t *context_lens;                    // [sequences]
  const int32_t *block_tables;                    // [sequences][table_width]
  const int32_t *logit_rows;                      // [rows]
  float* logits;                                  // [rows][vocab], or null
  int32_t* argmax;                                // [rows], or null
  // Speculation (execution/batch.py has the rules); all null in a step without.
  const int32_t* drafted;                         // [sequences] how many of its last tokens are drafts
  const int32_t* tree_slots;                      // [sequences] how many of its last slots are a tree
  const uint64_t* tree_masks;                     // [tokens] what each sees of it, 0: not of a tree
  // The last `by_head` sequences have one token each, and slots that differ from head to head; null without. Page
  // block * heads + head, of heads layer * kv_heads + kv_head, is a head's part of a block; any may have any page.
  int32_t by_head, head_width;
  const int32_t* head_pages;                      // [by_head][heads][head_width]
  const int32_t* head_lens;                       // [by_head][heads] slots in use, the token's own is the last
  // Inputs in the place of rows of the embedding table; null and 0 in a step without.
  const float* embeddings;                        // [embedding_count][width]
  const int32_t* embedding_rows;                  // [tokens] line of embeddings, -1: its row of the table
  int32_t embedding_count;
  // Of models with states, in rows that the caller numbers; null and 0 without. A text that begins finds its row empty.
  int32_t save_count;
  const int32_t* state_rows;                      // [sequences]
  const int32_t* state_saves;                     // [save_count][sequence, tokens of it, row], in order
  float* hidden;                                  // [tokens][width] takes the residual stream behind the last layer; or null
} pentad_batch;

// How to draw one token; execution/batch.py, SampleRow, says what each number means. Lists lie in
// the arrays of pentad_draws, from the given places on.
typedef struct {
  double temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
  uint64_t seed, choice, position;
  const uint32_t* mask;                           // [mask_words], or null
  float* raw;                                     // [vocab] takes the raw logits in place of a draw, or null
  int32_t mask_words, top_k;
  int32_t alternatives, alternatives_at;          // -1: no log probabilities
  int32_t seen, seen_count;                       // in ids
  int32_t counted, counted_count;                 // in ids: tokens, then how often each
  int32_t biased, biased_count, biases;           // in ids and in biases
  int32_t banned, banned_count;                   // in ids
  int32_t reserved;
} pentad_draw_row;

typedef struct {
  int32_t token;
  int32_t status;                                 // 0: drawn, 1: no token is allowed, 2: NaN or infinity,
                                                  // 3: infinity by penalties or bias, 4: memory ran out
  int32_t alternatives;                           // how many were found
  int32_t reserved;
  double logprob;
} pentad_drawn;

typedef struct {
  int32_t count;
  int32_t reserved;
  const int32_t* lines;                           // [rows of the batch] its place among the draws, or -1
  const pentad_draw_row* rows;                    // [count]
  const int32_t* ids;
  const double* biases;
  pentad_drawn* drawn;                            // [count]
  int32_t* alternative_tokens;
  double* alternative_logprobs;
} pentad_draws;

pentad_model* pentad_create(const pentad_config*);
void pentad_destroy(pentad_model*);
// Repacks a stored tensor. `paired`: so many rows of every head of a Q or K matrix are pairs of interleaved RoPE,
// which are taken apart.
// Returns 0, or -1 when the shape or format is not supported.
int pentad_set(pentad_model*, int32_t tensor, int32_t layer, int32_t format, const void* data, int32_t rows,
               int32_t cols, int32_t paired);
// The same in two parts, for packed weights that outlive the process. pentad_pack writes
// pentad_packed_bytes(...) bytes to `out`; pentad_attach makes the model read them where they lie.
size_t pentad_packed_bytes(int32_t format, int32_t rows, int32_t cols);
int pentad_pack(pentad_model*, int32_t format, const void* data, int32_t rows, int32_t cols, int32_t paired,
                void* out);
int pentad_attach(pentad_model*, int32_t tensor, int32_t layer, int32_t format, int32_t rows, int32_t cols,
                  const void* packed);
// Name of the layout and values of packed weights; a stored form of another one is not read.
const char* pentad_layout(void);
// PENTAD_INTERFACE of the build, and the size of a struct: 0 config, 1 batch, 2 draw row, 3 drawn, 4 draws,
// 5 encoder config, 6 op, 7 rotation, 8 experts, 9 mixer.
int32_t pentad_interface(void);
int32_t pentad_struct_bytes(int32_t which);
uint64_t pentad_checksum(const void* data, size_t bytes);
// Says that attached weights lie in a mapped file: should it be cut short, steps return 8 and the process lives.
int pentad_watch_weights(pentad_model*, const void* begin, size_t bytes);
// How a layer's tokens go to experts, copied; before the program. -1: numbers that can't be, or no such layer.
int pentad_set_experts(pentad_model*, int32_t layer, const pentad_experts*);
// Bytes of experts' matrices that all steps so far have read, shared ones included.
uint64_t pentad_expert_bytes(const pentad_model*);
// Told by the thread that called a step, while the others wait: in front of the first op of a layer, with `experts` null
// and `layers` for the head; and where rows are about to go through the routed experts of a layer, which ones, in order,
// and how many rows each. May not throw.
typedef void (*pentad_pager)(void* context, int32_t layer, const int32_t* experts, const int32_t* rows, int32_t count);
// From the next step on; null: nobody is told.
int pentad_set_pager(pentad_model*, pentad_pager, void* context);
// From within a pager: the experts that the residual stream, as it is now, would choose in another layer,
// [tokens][per_token], best first. Returns how many numbers that is, or -1: no such layer, or `most` is less.
int32_t pentad_guess_experts(pentad_model*, int32_t layer, int32_t* experts, int32_t most);
// The ops of every step, copied. Returns 0, or -1 for one that the kernels don't have or of no such layer, norm or
// rotation.
int pentad_set_program(pentad_model*, const pentad_op*, int32_t count);
// Takes the memory that steps need. Returns 0, or -1 where an op lacks a tensor or has one of another size.
int pentad_ready(pentad_model*);
// The same for any mapped file that is read for a while: how many pages were missing so far.
typedef struct pentad_watch pentad_watch;
pentad_watch* pentad_watch_file(const void* begin, size_t bytes);
uint32_t pentad_watch_lost(const pentad_watch*);
void pentad_watch_end(pentad_watch*);
// 0, or what is wrong with the batch: 1 token id, 2 position, 3 slot, 4 block, 5 row, 7 tree, 9 page of a head,
// 10 input embedding, 11 row of a state; or 6: memory ran out, 8: a part of the weights' file is gone.
int pentad_step(pentad_model*, const pentad_batch*);
// The same, then draws one token for every row that has a line; the others are left to argmax.
int pentad_step_draw(pentad_model*, const pentad_batch*, const pentad_draws*);
// Draws from given logits [count][vocab], without a model.
int32_t pentad_draw(const float* logits, int32_t vocab, const pentad_draws*);
// 0, or -1: a block or slot out of range.
int pentad_copy_block(pentad_model*, int32_t source, int32_t target);
// Where a block lies, pentad_kv_block_bytes of it over all layers; null: a block out of range, or blocks hold nothing.
void* pentad_block_data(pentad_model*, int32_t block);
size_t pentad_kv_block_bytes(const pentad_model*);
int pentad_copy_slots(pentad_model*, const int32_t* pairs /* [count][source, target] */, int32_t count);
// The same for single heads: page * 16 + place in it. All are read before any is written. -2: memory ran out.
int pentad_move_entries(pentad_model*, const int64_t* pairs /* [count][source, target] */, int32_t count);
// The state in one row to another. -1: a row out of range, -2: memory ran out.
int pentad_copy_state(pentad_model*, int32_t source, int32_t target);
// Encoders of the BERT kind: learned positions, layer norms after each half of a block, biases
// everywhere, attention in both directions.
typedef struct pentad_encoder pentad_encoder;

typedef struct {
  int32_t layers, width, heads, head_dim, ffn_width, vocab;
  int32_t activation;
  int32_t threads;
  int32_t max_tokens;        // of one text
  float eps;
} pentad_encoder_config;

// Matrices and vectors of an encoder (layer -1: of the model). Norms are scale, then shift, [2 width];
// positions are [max_tokens][width], the token type already added.
enum pentad_encoder_tensor {
  PENTAD_ENCODER_EMBED = 0, PENTAD_ENCODER_POSITIONS, PENTAD_ENCODER_EMBED_NORM,
  PENTAD_ENCODER_Q, PENTAD_ENCODER_K, PENTAD_ENCODER_V, PENTAD_ENCODER_O, PENTAD_ENCODER_UP, PENTAD_ENCODER_DOWN,
  PENTAD_ENCODER_ATTN_NORM, PENTAD_ENCODER_FFN_NORM,
  PENTAD_ENCODER_QKV_BIAS, PENTAD_ENCODER_O_BIAS, PENTAD_ENCODER_UP_BIAS, PENTAD_ENCODER_DOWN_BIAS
};

pentad_encoder* pentad_encoder_create(const pentad_encoder_config*);
void pentad_encoder_destroy(pentad_encoder*);
// Repacks a matrix, or copies a vector of format F32 (rows times cols numbers). 0, or -1 as pentad_set.
int pentad_encoder_set(pentad_encoder*, int32_t tensor, int32_t layer, int32_t format, const void* data, int32_t rows,
                       int32_t cols);
// Means of the last hidden states as unit vectors [texts][width]. `starts` is [texts + 1]. 0, or what is
// wrong as in pentad_step: 1 token id, 2 length, 6 memory or a tensor that was never set.
int pentad_encode(pentad_encoder*, const int32_t* token_ids, const int32_t* starts, int32_t texts, float* vectors);
size_t pentad_encoder_weight_bytes(const pentad_encoder*);
// For the profiler, medians of `repeats`: seconds of one product with packed weights [rows][cols], for
// each of `count` numbers of tokens taken in turn from so many copies; and of one pass over that much
// memory. -1: memory ran out, or rows and cols that are no multiples of 16 and 32.
int32_t pentad_time_products(int32_t format, int32_t rows, int32_t cols, int32_t threads, int32_t repeats, int32_t count,
                             const int32_t* tokens, const int32_t* copies, double* seconds);
double pentad_time_read(size_t bytes, int32_t passes, int32_t threads, int32_t repeats);
// Attention of one head alone, on one thread, as a step computes it: queries [count][dim] are those of
// the last `count` of `context` keys and values [context][dim], and each sees the `window` (0: all) up to
// its own. Scores are products times `scale`, then capped and less `slope` times the distance, as of an op; a `sink` of
// minus infinity is none. `tiled`: as of a prompt on AMX. Returns the bytes of memory that it works in beside
// the pages, or -1: sizes that do not fit, no tiles here, or memory ran out.
int64_t pentad_attend(const float* queries, const float* keys, const float* values, int32_t count, int32_t context,
                      int32_t dim, int32_t window, int32_t tiled, float scale, float cap, float slope, float sink,
                      float* out);
size_t pentad_weight_bytes(const pentad_model*);
size_t pentad_block_bytes(const pentad_model*);
// The keys and values of one block and head as attention reads them, as block `place` of a text (pages.h):
// bf16 [head_dim / 2][16][2], then [8][head_dim][2]. Returns -1 for a number out of range.
int pentad_read_block(pentad_model*, int32_t layer, int32_t head, int32_t block, int32_t place, uint16_t* out);
// How much the 16 slots of each of these pages were attended to since they were written: softmax weights, summed
// over queries and over the heads that share keys, [count][16]. Drafts do not count as queries, since they may be
// rejected. The sums are the same whatever the number of threads. -1: a page out of range, or no count is kept.
int pentad_page_scores(const pentad_model*, const int32_t* pages, int32_t count, double* out);
// What a feed-forward makes of `count` values, a multiple of 16, of its gate and of what stands beside it; or, with `up`
// null, of values without a gate.
void pentad_activate(int32_t activation, const float* gate, const float* up, int32_t count, float* out);
// The 8-bit codes [dim] of one token's key or value and their step in bf16.
void pentad_code_row(const float* x, int32_t dim, int8_t* codes, uint16_t* step);
const char* pentad_kernels(void);  // e.g. "avx512-vnni+amx-bf16"
int32_t pentad_threads(pentad_model*);  // that there are: fewer than asked where the system starts no more
void pentad_set_threads(pentad_model*, int32_t active);
// Seconds per phase over the steps that were timed: embedding, QKV, attention, output, gate and up,
// down, head and drawing. Steps are not timed until asked for.
void pentad_set_timed(pentad_model*, int32_t timed);
void pentad_times(const pentad_model*, double* seconds /* [8] */);
// Limits of this machine, one number per pass: bytes read per second by all threads, each its share;
// int8 operations per second, or bf16 ones on tiles, 0 where the build has no instruction for them.
// pentad_probe_products with tiles only after a model was created, which asks for their use.
int32_t pentad_probe_read(const void* data, size_t bytes, int32_t threads, int32_t passes, double* bytes_per_s);
int32_t pentad_probe_products(int32_t threads, int32_t tiles, int32_t passes, double* operations_per_s);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
