// Latent attention in absorbed form (DeepSeek-V2, section 2.1): what is kept of a token is one vector and one rotated
// key, and a head asks by its query times the matrix that would make its key of the vector. So all heads read one key.
#include "step.h"

namespace pentad {

namespace {

// Turns numbers that are rotated, which are left as halves.
void turn(const Op& op, const Rotation& rotation, int position, float* x) {
  const int half = rotation.dim() / 2;
  float halves[kMostDim];
  if (op.interleaved) {
    for (int i = 0; i < half; i++) halves[i] = x[2 * i], halves[half + i] = x[2 * i + 1];
    std::copy_n(halves, 2 * half, x);
  }
  rotate_pairs(half, rotation.at(position), x);
}

// Hidden states to the vector that queries are made of, the one that is kept, and the key beside it.
void make_vectors(Step& s, const LayerWeights& l, int rank) {
  const Input in = s.normed(rank);
  const int asked = l.mixer.query_rank / kRows, groups = asked + l.mixer.key_dim / kRows;
  auto [begin, end] = s.share(groups, rank);
  const auto multiply = [&](const Matrix& m, int first) {
    const int from = std::max(begin - first, 0), to = std::min(end - first, m.rows / kRows);
    if (from >= to) return;
    s.products.multiply(m, in, from, to, rank, [&](int group, int t, f32x16 v) {
      store(s.latent.row(t) + (first + group) * kRows, v);
    });
  };
  if (asked) multiply(l.q_down.matrix, 0);
  multiply(l.kv_down.matrix, asked);
}

// What queries are made of, where that is not the hidden state.
Input asked_input(Step& s, int cols) {
  const int exact = static_cast<int>(s.split.exact.size());
  return {.codes = s.latent.asked.codes(cols, s.products.panel(exact)), .wide = s.latent.asked.wide(cols), .split = &s.split};
}

void norm_vectors(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const pentad_mixer& m = l.mixer;
  const int asked = m.query_rank;
  auto [begin, end] = s.share(s.batch->tokens, rank);
  for (int t = begin; t < end; t++) {
    float *row = s.latent.row(t), *kept = row + asked;
    if (asked) {
      rms_row(asked, m.eps, row, l.q_norm.data(), row);
      asked_input(s, asked).put(row, t, 0, asked / kBlock);
    }
    rms_row(m.value_dim, m.eps, kept, l.kv_norm.data(), kept);
    turn(op, *s.cache.rotation(op.rotation), s.batch->positions[t], kept + m.value_dim);
  }
}

// Writes what is kept of the tokens to their slots. A block is written by one thread.
void write_keys(Step& s, const Op& op, int rank) {
  const pentad_mixer& m = op.weights->mixer;
  const int* slots = s.batch->slots;
  for (int t = 0; t < s.batch->tokens; t++) {
    const int number = slots[t] / kPage, offset = slots[t] % kPage;
    if (number % s.team.active() != rank) continue;
    uint8_t* block = s.cache.head(op.layer, 0, number);
    if (!offset) clear_values(block, m.key_dim, {}, true);
    write_key(reinterpret_cast<uint16_t*>(block), m.key_dim, offset, s.latent.row(t) + m.query_rank);
  }
}

// Queries of whole heads, and what they ask of the vector: [asked of the vector][rotated numbers].
void make_queries(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const pentad_mixer& m = l.mixer;
  const int tokens = s.batch->tokens, turned = m.key_dim - m.value_dim, plain = m.plain_dim;
  const int per_head = (plain + turned) / kRows, up = m.value_dim / kRows;
  auto [begin, end] = s.share(m.heads, rank);
  const Input in = m.query_rank ? asked_input(s, m.query_rank) : s.normed(rank);
  s.products.multiply(l.q.matrix, in, begin * per_head, end * per_head, rank, [&](int group, int t, f32x16 v) {
    const int head = group / per_head, at = group % per_head * kRows;
    store(at < plain ? s.given(t, head) + at : s.head_row(head, t) + m.value_dim + at - plain, v);
  });
  for (int head = begin; head < end; head++) {
    const Quantized codes = s.latent.plain.codes(plain, 1, head * tokens);
    for (int t = 0; t < tokens; t++) {
      turn(op, *s.cache.rotation(op.rotation), s.batch->positions[t], s.head_row(head, t) + m.value_dim);
      quantize(s.given(t, head), codes, t, 0, plain / kBlock);
    }
    s.products.multiply(l.k_up.matrix, codes, tokens, head * up, (head + 1) * up, rank, [&](int group, int t, f32x16 v) {
      store(s.head_row(head, t) + (group - head * up) * kRows, v);
    });
  }
}

}  // namespace

void latent(Step& s, const Op& op, int rank) {
  make_vectors(s, *op.weights, rank);
  s.team.barrier();
  norm_vectors(s, op, rank);
  s.team.barrier();
  write_keys(s, op, rank);
  make_queries(s, op, rank);
  s.team.barrier();
}

void latent_out(Step& s, const Op& op, int rank) {
  const LayerWeights& l = *op.weights;
  const pentad_mixer& m = l.mixer;
  const int tokens = s.batch->tokens, up = m.out_dim / kRows, blocks = m.out_dim / kBlock;
  const Input next = s.input(m.heads * m.out_dim);
  auto [begin, end] = s.share(m.heads, rank);
  for (int head = begin; head < end; head++) {
    const Quantized codes = s.latent.vectors.codes(m.value_dim, 1, head * tokens);
    s.products.multiply(l.v_up.matrix, codes, tokens, head * up, (head + 1) * up, rank, [&](int group, int t, f32x16 v) {
      store(s.given(t, head) + (group - head * up) * kRows, v);
    });
    for (int t = 0; t < tokens; t++) next.put(s.given(t, head), t, head * blocks, blocks);
  }
  s.team.barrier();
}

}  // namespace pentad
