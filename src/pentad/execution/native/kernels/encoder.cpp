// Encoders of the BERT kind over whole texts that lie end to end, without padding and without a cache.
//
// Numbers of a token depend on its text alone: products give the same bits in every batch.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "activations.h"
#include "exact_products.h"
#include "guard.h"
#include "native.h"
#include "threads.h"

namespace pentad {

namespace {

struct Block {
  ExactMatrix q, k, v, o, up, down;
  std::vector<float> attn_norm, ffn_norm, qkv_bias, o_bias, up_bias, down_bias;
};

}  // namespace

class Encoder {
 public:
  explicit Encoder(const pentad_encoder_config& c)
      : c_(c), team_(c.threads), blocks_(static_cast<size_t>(c.layers)), dim_(c.heads * c.head_dim) {
    for (int i = 0; i < team_.size(); i++) {
      keys_.emplace_back(static_cast<size_t>(pad(c.max_tokens, 16)) * c.head_dim);
      scores_.emplace_back(static_cast<size_t>(pad(c.max_tokens, 16)));
    }
  }

  // Matrices and vectors come in F32, the table of embeddings in F16.
  int set(int tensor, int layer, Format format, const uint8_t* data, int rows, int cols) {
    if (std::vector<float>* v = vector_of(tensor, layer)) {
      if (format != Format::F32) return -1;
      const float* values = reinterpret_cast<const float*>(data);
      v->assign(values, values + static_cast<size_t>(rows) * cols);
      return 0;
    }
    if (tensor == PENTAD_ENCODER_EMBED) {
      if (format != Format::F16) return -1;
      const uint16_t* halves = reinterpret_cast<const uint16_t*>(data);
      embed_.assign(halves, halves + static_cast<size_t>(rows) * cols);
      return 0;
    }
    if (format != Format::F32 || cols % kBlock) return -1;
    const float* values = reinterpret_cast<const float*>(data);
    ExactMatrix* m = matrix_of(tensor, layer);
    if (!m || rows % kRows) return -1;
    m->shape(rows, cols);
    team_.run([&](int rank) {
      auto [begin, end] = share(rows / kRows, rank);
      for (int group = begin; group < end; group++) m->pack(group, values);
    });
    return 0;
  }

  size_t weight_bytes() const {
    size_t n = embed_.size() * 2 + (positions_.size() + embed_norm_.size()) * 4;
    for (auto& b : blocks_)
      for (const ExactMatrix* m : {&b.q, &b.k, &b.v, &b.o, &b.up, &b.down}) n += m->bytes();
    return n;
  }

  int encode(const int32_t* tokens, const int32_t* starts, int texts, float* vectors) {
    if (!complete()) return 6;
    const int n = starts[texts];
    if (texts < 1 || starts[0]) return 2;
    for (int i = 0; i < texts; i++)
      if (starts[i + 1] <= starts[i] || starts[i + 1] - starts[i] > c_.max_tokens) return 2;
    for (int t = 0; t < n; t++)
      if (tokens[t] < 0 || tokens[t] >= c_.vocab) return 1;
    tokens_ = tokens, starts_ = starts, texts_ = texts, count_ = n;
    const size_t rows = static_cast<size_t>(n);
    x_.resize(rows * c_.width);
    qkv_.resize(rows * 3 * dim_);
    attended_.resize(rows * dim_);
    hidden_.resize(rows * c_.ffn_width);
    const int cols = std::max({c_.width, dim_, c_.ffn_width});
    inputs_.reserve(n, cols);
    team_.run([this, vectors](int rank) { work(rank, vectors); });
    return 0;
  }

 private:
  ExactMatrix* matrix_of(int tensor, int layer) {
    if (layer < 0 || layer >= c_.layers) return nullptr;
    Block& b = blocks_[static_cast<size_t>(layer)];
    switch (tensor) {
      case PENTAD_ENCODER_Q: return &b.q;
      case PENTAD_ENCODER_K: return &b.k;
      case PENTAD_ENCODER_V: return &b.v;
      case PENTAD_ENCODER_O: return &b.o;
      case PENTAD_ENCODER_UP: return &b.up;
      case PENTAD_ENCODER_DOWN: return &b.down;
      default: return nullptr;
    }
  }
  std::vector<float>* vector_of(int tensor, int layer) {
    if (tensor == PENTAD_ENCODER_POSITIONS) return &positions_;
    if (tensor == PENTAD_ENCODER_EMBED_NORM) return &embed_norm_;
    if (layer < 0 || layer >= c_.layers) return nullptr;
    Block& b = blocks_[static_cast<size_t>(layer)];
    switch (tensor) {
      case PENTAD_ENCODER_ATTN_NORM: return &b.attn_norm;
      case PENTAD_ENCODER_FFN_NORM: return &b.ffn_norm;
      case PENTAD_ENCODER_QKV_BIAS: return &b.qkv_bias;
      case PENTAD_ENCODER_O_BIAS: return &b.o_bias;
      case PENTAD_ENCODER_UP_BIAS: return &b.up_bias;
      case PENTAD_ENCODER_DOWN_BIAS: return &b.down_bias;
      default: return nullptr;
    }
  }
  bool complete() const {
    const size_t width = static_cast<size_t>(c_.width);
    if (embed_.size() != width * c_.vocab || positions_.size() != width * c_.max_tokens || embed_norm_.size() != 2 * width) return false;
    return std::all_of(blocks_.begin(), blocks_.end(), [&](const Block& b) {
      for (const ExactMatrix* m : {&b.q, &b.k, &b.v, &b.o, &b.up, &b.down})
        if (!m->rows) return false;
      return b.attn_norm.size() == 2 * width && b.ffn_norm.size() == 2 * width && b.o_bias.size() == width &&
             b.down_bias.size() == width && b.qkv_bias.size() == static_cast<size_t>(3 * dim_) &&
             b.up_bias.size() == static_cast<size_t>(c_.ffn_width);
    });
  }

  std::pair<int, int> share(int n, int rank) const { return share_of(n, rank, team_.active()); }

  // use(first column, token, 16 values) for this member's share of the rows of m.
  template <typename Use>
  void product(const ExactMatrix& m, int rank, Use&& use) {
    auto [begin, end] = share(m.rows / kRows, rank);
    multiply_exact(m, inputs_, count_, begin, end, [&](int group, int t, f32x16 v) PENTAD_LAMBDA { use(group * kRows, t, v); });
  }

  // Tokens of this member: rows of `from` become the next product's input.
  void take_inputs(const std::vector<float>& from, int cols, int rank) {
    auto [begin, end] = share(count_, rank);
    for (int t = begin; t < end; t++) inputs_.put(from.data() + static_cast<size_t>(t) * cols, t, cols);
    team_.barrier();
  }

  void normalise(float* x, const std::vector<float>& norm) const {
    const int n = c_.width;
    f32x16 sum = splat(0.0f), squares = splat(0.0f);
    for (int i = 0; i < n; i += 16) sum += load(x + i);
    const float mean = hsum(sum) / static_cast<float>(n);
    for (int i = 0; i < n; i += 16) squares += (load(x + i) - mean) * (load(x + i) - mean);
    const float scale = 1.0f / std::sqrt(hsum(squares) / static_cast<float>(n) + c_.eps);
    for (int i = 0; i < n; i += 16)
      store(x + i, (load(x + i) - mean) * scale * load(norm.data() + i) + load(norm.data() + n + i));
  }

  void embed(int rank) {
    for (int i = 0; i < texts_; i++) {
      auto [begin, end] = share(starts_[i + 1] - starts_[i], rank);
      for (int p = begin; p < end; p++) {
        float* x = x_.data() + static_cast<size_t>(starts_[i] + p) * c_.width;
        const uint16_t* row = embed_.data() + static_cast<size_t>(tokens_[starts_[i] + p]) * c_.width;
        const float* position = positions_.data() + static_cast<size_t>(p) * c_.width;
        for (int j = 0; j < c_.width; j += 16) store(x + j, load_half(row + j) + load(position + j));
        normalise(x, embed_norm_);
      }
    }
    team_.barrier();
  }

  void qkv(const Block& b, int rank) {
    take_inputs(x_, c_.width, rank);
    const ExactMatrix* parts[3] = {&b.q, &b.k, &b.v};
    for (int i = 0; i < 3; i++) {
      const int at = i * dim_;
      product(*parts[i], rank, [&](int column, int t, f32x16 v) {
        store(qkv_.data() + static_cast<size_t>(t) * 3 * dim_ + at + column, v + load(b.qkv_bias.data() + at + column));
      });
    }
    team_.barrier();
  }

  // Texts times heads, cut among the members by the squares of the lengths.
  void attention(int rank) {
    int64_t total = 0, seen = 0;
    for (int i = 0; i < texts_; i++) total += cost(i) * c_.heads;
    const int64_t k = team_.active();
    for (int i = 0; i < texts_; i++)
      for (int h = 0; h < c_.heads; h++, seen += cost(i))
        if (seen * k / total == rank) attend(i, h, rank);
    team_.barrier();
  }
  int64_t cost(int text) const {
    const int64_t n = starts_[text + 1] - starts_[text];
    return n * n;
  }
  void attend(int text, int head, int rank) {
    const int from = starts_[text], n = starts_[text + 1] - from, wide = pad(n, 16), d = c_.head_dim;
    const size_t row = static_cast<size_t>(3) * dim_;
    const float* base = qkv_.data() + static_cast<size_t>(from) * row + head * d;
    float* keys = keys_[static_cast<size_t>(rank)].data();  // [d][wide]
    float* scores = scores_[static_cast<size_t>(rank)].data();
    for (int j = 0; j < d; j++)
      for (int s = 0; s < wide; s++) keys[j * wide + s] = s < n ? base[static_cast<size_t>(s) * row + dim_ + j] : 0.0f;
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    for (int t = 0; t < n; t++) {
      const float* q = base + static_cast<size_t>(t) * row;
      f32x16 top = splat(-INFINITY);
      for (int s = 0; s < wide; s += 16) {
        f32x16 acc = splat(0.0f);
        for (int j = 0; j < d; j++) acc += load(keys + j * wide + s) * q[j];
        store(scores + s, acc * scale);
      }
      for (int s = n; s < wide; s++) scores[s] = -INFINITY;  // whose exponential adds nothing
      for (int s = 0; s < wide; s += 16) top = vmax(top, load(scores + s));
      const float most = hmax(top);
      f32x16 sum = splat(0.0f);
      for (int s = 0; s < wide; s += 16) {
        const f32x16 e = vexp(load(scores + s) - most);
        store(scores + s, e);
        sum += e;
      }
      const float inverse = 1.0f / hsum(sum);
      float* out = attended_.data() + static_cast<size_t>(from + t) * dim_ + head * d;
      for (int j = 0; j < d; j += 16) {
        f32x16 acc = splat(0.0f);
        for (int s = 0; s < n; s++) acc += load(base + static_cast<size_t>(s) * row + 2 * dim_ + j) * scores[s];
        store(out + j, acc * inverse);
      }
    }
  }

  // x = norm(x + product + bias)
  void add_and_norm(const ExactMatrix& w, const std::vector<float>& bias, const std::vector<float>& norm, int rank) {
    product(w, rank, [&](int column, int t, f32x16 v) {
      float* x = x_.data() + static_cast<size_t>(t) * c_.width + column;
      store(x, load(x) + v + load(bias.data() + column));
    });
    team_.barrier();
    auto [begin, end] = share(count_, rank);
    for (int t = begin; t < end; t++) normalise(x_.data() + static_cast<size_t>(t) * c_.width, norm);
  }

  void work(int rank, float* vectors) {
    embed(rank);
    for (const Block& b : blocks_) {
      qkv(b, rank);
      attention(rank);
      take_inputs(attended_, dim_, rank);
      add_and_norm(b.o, b.o_bias, b.attn_norm, rank);
      take_inputs(x_, c_.width, rank);
      product(b.up, rank, [&](int column, int t, f32x16 v) {
        store(hidden_.data() + static_cast<size_t>(t) * c_.ffn_width + column,
              activate(v + load(b.up_bias.data() + column), c_.activation));
      });
      team_.barrier();
      take_inputs(hidden_, c_.ffn_width, rank);
      add_and_norm(b.down, b.down_bias, b.ffn_norm, rank);
      team_.barrier();
    }
    auto [begin, end] = share(texts_, rank);
    for (int i = begin; i < end; i++) pool(i, vectors + static_cast<size_t>(i) * c_.width);
  }

  // The mean of a text's rows, of length 1; the count cancels out.
  void pool(int text, float* out) const {
    std::fill(out, out + c_.width, 0.0f);
    for (int t = starts_[text]; t < starts_[text + 1]; t++) {
      const float* x = x_.data() + static_cast<size_t>(t) * c_.width;
      for (int j = 0; j < c_.width; j += 16) store(out + j, load(out + j) + load(x + j));
    }
    f32x16 squares = splat(0.0f);
    for (int j = 0; j < c_.width; j += 16) squares += load(out + j) * load(out + j);
    const float scale = 1.0f / std::max(std::sqrt(hsum(squares)), 1e-12f);
    for (int j = 0; j < c_.width; j += 16) store(out + j, load(out + j) * scale);
  }

  pentad_encoder_config c_;
  Team team_;
  std::vector<Block> blocks_;
  std::vector<uint16_t> embed_;  // [vocab][width] in fp16
  std::vector<float> positions_, embed_norm_;
  int dim_ = 0, texts_ = 0, count_ = 0;
  const int32_t *tokens_ = nullptr, *starts_ = nullptr;
  ExactInput inputs_;
  std::vector<float> x_, qkv_, attended_, hidden_;
  std::vector<std::vector<float>> keys_, scores_;
};

}  // namespace pentad

struct pentad_encoder {
  pentad::Encoder encoder;
};

extern "C" {

pentad_encoder* pentad_encoder_create(const pentad_encoder_config* c) {
  return pentad::guarded<pentad_encoder*>(nullptr, [&] { return new pentad_encoder{pentad::Encoder(*c)}; });
}
void pentad_encoder_destroy(pentad_encoder* e) { delete e; }
int pentad_encoder_set(pentad_encoder* e, int32_t tensor, int32_t layer, int32_t format, const void* data, int32_t rows,
                       int32_t cols) {
  return pentad::guarded(-1, [&] {
    return e->encoder.set(tensor, layer, static_cast<pentad::Format>(format), static_cast<const uint8_t*>(data), rows, cols);
  });
}
int pentad_encode(pentad_encoder* e, const int32_t* token_ids, const int32_t* starts, int32_t texts, float* vectors) {
  return pentad::guarded(6, [&] { return e->encoder.encode(token_ids, starts, texts, vectors); });
}
size_t pentad_encoder_weight_bytes(const pentad_encoder* e) { return e->encoder.weight_bytes(); }
}
