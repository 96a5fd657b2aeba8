// Random models and random ragged batches through the C interface, sound ones and broken ones, for the sanitizers:
// see scripts/sanitize. Says what it did; exits with 1 where a sound batch is refused or a broken one is not.
//
//   fuzz SEED MODELS STEPS
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "native.h"
#include "pack.h"
#include "simd.h"

namespace {

using pentad::Format;

constexpr int kBlockTokens = 16;

struct Random {
  std::mt19937_64 source;
  int below(int n) { return static_cast<int>(source() % static_cast<uint64_t>(n)); }
  int from(int least, int most) { return least + below(most - least + 1); }
  bool once_in(int n) { return below(n) == 0; }
  float real(float least, float most) { return std::uniform_real_distribution<float>(least, most)(source); }
  template <typename T>
  T one_of(std::initializer_list<T> list) { return list.begin()[below(static_cast<int>(list.size()))]; }
};

// Numbers of a block of a stored format, and its bytes.
struct Stored {
  int numbers, bytes;
};
Stored stored_block(Format format) {
  switch (format) {
    case Format::F32: return {1, 4};
    case Format::Q4_0: return {32, 18};
    case Format::Q4_1: return {32, 20};
    case Format::Q5_0: return {32, 22};
    case Format::Q5_1: return {32, 24};
    case Format::Q8_0: return {32, 34};
    case Format::Q4_K: return {256, 144};
    case Format::Q5_K: return {256, 176};
    case Format::Q6_K: return {256, 210};
    default: std::abort();
  }
}

std::vector<uint8_t> stored(Random& draw, Format format, int rows, int cols) {
  const Stored block = stored_block(format);
  std::vector<uint8_t> raw(static_cast<size_t>(rows) * static_cast<size_t>(cols / block.numbers * block.bytes));
  if (format == Format::F32) {
    for (size_t at = 0; at < raw.size(); at += 4) {
      const float x = draw.real(-0.1f, 0.1f);
      std::memcpy(raw.data() + at, &x, 4);
    }
    return raw;
  }
  for (auto& byte : raw) byte = static_cast<uint8_t>(draw.source());
  const size_t bytes = static_cast<size_t>(block.bytes);
  for (size_t at = 0; at < raw.size(); at += bytes) {
    const uint16_t halves[2] = {pentad::float_to_half(draw.real(0.0001f, 0.001f)), pentad::float_to_half(draw.real(-0.005f, 0.005f))};
    if (format == Format::Q6_K) std::memcpy(raw.data() + at + bytes - 2, halves, 2);
    else std::memcpy(raw.data() + at, halves, format == Format::Q4_0 || format == Format::Q5_0 || format == Format::Q8_0 ? 2 : 4);
  }
  return raw;
}

// A sequence as an engine keeps it.
struct Text {
  std::vector<int32_t> blocks;
  int row = 0;     // of its state
  int tokens = 0;  // in the cache
};

class Fuzz {
 public:
  explicit Fuzz(uint64_t seed) { draw_.source.seed(seed); }

  bool run(int steps) {
    make_model();
    if (!model_) return fail("a sound model was refused");
    for (int i = 0; i < steps; i++)
      if (!step()) return false;
    pentad_destroy(model_);
    return true;
  }

 private:
  bool fail(const char* what) {
    std::printf("fuzz: %s\n", what);
    return false;
  }

  void set(int tensor, int layer, int rows, int cols, bool whole = false) {
    const Format format = draw_.one_of({Format::F32, Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0,
                                        Format::Q4_K, Format::Q5_K, Format::Q6_K});
    const auto raw = stored(draw_, format, rows, cols);
    const int paired = !whole && (tensor == PENTAD_Q || tensor == PENTAD_K) ? paired_ : 0;
    if (pentad_set(model_, tensor, layer, static_cast<int32_t>(format), raw.data(), rows, cols, paired)) std::abort();
  }
  void set_vector(int tensor, int layer, int size) {
    std::vector<float> values(static_cast<size_t>(size));
    for (auto& v : values) v = draw_.real(0.5f, 1.5f);
    if (pentad_set(model_, tensor, layer, 0, values.data(), 1, size, 0)) std::abort();
  }

  void make_model() {
    c_ = {};
    c_.layers = draw_.from(1, 2);
    c_.width = 256 * draw_.from(1, 2);
    c_.kv_heads = draw_.from(1, 2);
    c_.heads = c_.kv_heads * draw_.from(1, 4);
    c_.head_dim = draw_.one_of({32, 64, 128});
    if (c_.heads * c_.head_dim % 256) c_.heads = c_.kv_heads * (256 / std::min(256, c_.head_dim * c_.kv_heads));
    if (c_.heads * c_.head_dim % 256) c_.heads = c_.kv_heads = 256 / c_.head_dim;
    c_.ffn_width = 256 * draw_.from(1, 3);
    c_.vocab = draw_.from(20, 400);
    const bool biased = draw_.once_in(2), normed = draw_.once_in(2);
    c_.threads = draw_.from(1, 3);
    c_.num_blocks = draw_.from(4, 60);
    c_.max_context = std::min(draw_.from(40, 600), c_.num_blocks * kBlockTokens);
    c_.key_bits = draw_.one_of({4, 8, 16});
    c_.value_bits = c_.key_bits == 16 ? 16 : draw_.once_in(2) ? c_.key_bits : 4;
    c_.attention_scores = draw_.once_in(4);
    c_.key_centres = draw_.below(2);
    paired_ = draw_.once_in(2) ? c_.head_dim / draw_.from(1, 2) : 0;
    std::vector<std::vector<float>> frequencies(static_cast<size_t>(draw_.from(0, 3)));
    std::vector<pentad_rotation> rotations;
    for (auto& kind : frequencies) {
      const int dim = c_.head_dim / draw_.from(1, 2);
      for (int i = 0; i < dim / 2; i++) kind.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(dim)));
      rotations.push_back({dim, draw_.real(0.5f, 1.5f), kind.data()});
    }
    c_.rotation_count = static_cast<int32_t>(rotations.size());
    c_.rotations = rotations.data();
    mixers_.clear();
    for (int i = 0; i < c_.layers; i++) mixers_.push_back(mixer());
    states_ = std::any_of(mixers_.begin(), mixers_.end(), [](const pentad_mixer& m) { return m.kind != PENTAD_ATTENTION; });
    c_.mixers = mixers_.data();
    model_ = pentad_create(&c_);
    if (!model_) return;
    const int q = c_.heads * c_.head_dim, kv = c_.kv_heads * c_.head_dim;
    set(PENTAD_EMBED, -1, c_.vocab, c_.width);
    if (draw_.once_in(2)) set(PENTAD_HEAD, -1, c_.vocab, c_.width);
    std::vector<pentad_op> program = entry();
    for (int i = 0; i < c_.layers; i++) {
      if (mixers_[static_cast<size_t>(i)].kind != PENTAD_ATTENTION) {
        set_state(i);
        add_layer(program, i);
        continue;
      }
      set(PENTAD_Q, i, q, c_.width), set(PENTAD_K, i, kv, c_.width), set(PENTAD_V, i, kv, c_.width);
      set(PENTAD_O, i, c_.width, q);
      const bool all = draw_.once_in(3);
      if (normed) set_vector(PENTAD_Q_NORM, i, all ? q : c_.head_dim), set_vector(PENTAD_K_NORM, i, all ? kv : c_.head_dim);
      if (biased) set_vector(PENTAD_Q_BIAS, i, q), set_vector(PENTAD_K_BIAS, i, kv), set_vector(PENTAD_V_BIAS, i, kv);
      if (draw_.once_in(2)) set_vector(PENTAD_O_BIAS, i, c_.width);
      add_layer(program, i);
    }
    pentad_op head = op(PENTAD_OP_HEAD, -1);
    if (draw_.below(4)) normalise(head, PENTAD_FINAL_NORM, PENTAD_FINAL_NORM_BIAS);
    if (draw_.once_in(3)) set_vector(PENTAD_HEAD_BIAS, -1, c_.vocab), head.cap = 2.0f;
    program.push_back(head);
    if (pentad_set_program(model_, program.data(), static_cast<int32_t>(program.size())) || pentad_ready(model_)) std::abort();
    for (int i = 0; i < c_.num_blocks; i++) free_.push_back(i);
  }

  // How a layer mixes tokens: mostly by attention.
  pentad_mixer mixer() {
    pentad_mixer m{};
    m.kind = draw_.below(5) < 3 ? static_cast<int>(PENTAD_ATTENTION) : draw_.from(PENTAD_GATED_DELTA, PENTAD_CONVOLUTION);
    m.heads = c_.heads, m.groups = c_.kv_heads, m.key_dim = m.value_dim = c_.head_dim;
    if (m.kind == PENTAD_ATTENTION) return m;
    m.conv = draw_.from(1, 5), m.channels = 256 * draw_.from(1, 2), m.norm_groups = draw_.from(1, 2), m.eps = 1e-5f;
    m.least_step = 0.0f, m.most_step = draw_.real(0.1f, 2.0f);
    if (m.kind == PENTAD_CONVOLUTION) return m;
    m.value_dim = draw_.one_of({32, 64, 128}), m.heads = 256 / m.value_dim, m.key_dim = 16 * draw_.from(1, 5);
    m.groups = m.heads / draw_.from(1, 2), m.channels = 256 + 2 * m.groups * m.key_dim;
    return m;
  }
  void set_state(int i) {
    const pentad_mixer& m = mixers_[static_cast<size_t>(i)];
    const int inner = m.kind == PENTAD_CONVOLUTION ? m.channels : 256, keys = m.groups * m.key_dim;
    set_vector(PENTAD_CONV, i, m.conv * m.channels);
    if (draw_.below(2)) set_vector(PENTAD_CONV_BIAS, i, m.channels);
    set(PENTAD_O, i, c_.width, inner);
    if (m.kind == PENTAD_CONVOLUTION) {
      set(PENTAD_CONV_IN, i, 3 * inner, c_.width);
      if (draw_.below(2)) set_vector(PENTAD_CONV_IN_BIAS, i, 3 * inner);
      return;
    }
    const bool delta = m.kind == PENTAD_GATED_DELTA;
    set(PENTAD_Z, i, inner, c_.width), set(PENTAD_V, i, inner, c_.width);
    set(PENTAD_K, i, keys, c_.width, true), set(PENTAD_Q, i, keys, c_.width, true);
    set(PENTAD_STEP, i, m.heads, c_.width), set_vector(PENTAD_STEP_BIAS, i, m.heads), set_vector(PENTAD_DECAY, i, m.heads);
    set_vector(PENTAD_INNER_NORM, i, delta ? m.value_dim : inner);
    if (delta) set(PENTAD_RATE, i, m.heads, c_.width);
    else set_vector(PENTAD_SKIP, i, m.heads);
  }

  pentad_op op(int kind, int layer) {
    pentad_op found{};
    found.kind = kind, found.layer = layer, found.rotation = -1, found.eps = 1e-5f;
    found.scale = draw_.once_in(3) ? draw_.real(0.2f, 2.0f) : 1.0f;
    return found;
  }
  // Gives an op a norm of either kind, with its weights.
  void normalise(pentad_op& of, int tensor, int shift) {
    of.tensor = tensor, of.centred = draw_.below(2);
    set_vector(tensor, of.layer, c_.width);
    if (of.centred && draw_.below(2)) set_vector(shift, of.layer, c_.width);
  }
  // What stands in front of the layers.
  std::vector<pentad_op> entry() {
    std::vector<pentad_op> ops = {op(PENTAD_OP_EMBED, -1)};
    if (draw_.once_in(3)) {
      ops.push_back(op(PENTAD_OP_POSITIONS, -1));
      ops.back().offset = draw_.from(0, 3);
      set(PENTAD_POSITIONS, -1, c_.max_context + ops.back().offset, c_.width);
    }
    if (draw_.once_in(4)) {
      ops.push_back(op(PENTAD_OP_RENORM, -1));
      normalise(ops.back(), PENTAD_EMBED_NORM, PENTAD_EMBED_NORM_BIAS);
    }
    return ops;
  }
  // A layer with its norms in any place, its parts one behind the other or beside each other, gated or not.
  void add_layer(std::vector<pentad_op>& program, int i) {
    const bool pre = draw_.below(3), apart = draw_.once_in(3), parallel = draw_.once_in(3), gated = draw_.below(2);
    const int hidden = 256 * draw_.from(1, c_.ffn_width / 256), biased = draw_.below(2);
    if (gated) set(PENTAD_GATE, i, hidden, c_.width);
    set(PENTAD_UP, i, hidden, c_.width), set(PENTAD_DOWN, i, c_.width, hidden);
    if (biased && gated) set_vector(PENTAD_GATE_BIAS, i, hidden);
    if (biased) set_vector(PENTAD_UP_BIAS, i, hidden), set_vector(PENTAD_DOWN_BIAS, i, c_.width);
    const auto read = [&](int tensor, int shift) {
      program.push_back(op(PENTAD_OP_NORM, i));
      if (pre) normalise(program.back(), tensor, shift);
    };
    const auto give = [&](int kind, int tensor, int shift) {
      program.push_back(op(kind, i));
      program.back().apart = apart;
      if (!apart && pre) return;
      program.push_back(op(apart ? PENTAD_OP_ADD : PENTAD_OP_RENORM, i));
      normalise(program.back(), tensor, shift);
    };
    const auto feed = [&] {
      program.push_back(op(gated ? PENTAD_OP_GATE_UP : PENTAD_OP_UP, i));
      program.back().activation = draw_.from(PENTAD_GELU, PENTAD_RELU_SQUARED);
    };
    read(PENTAD_ATTN_NORM, PENTAD_ATTN_NORM_BIAS);
    if (const int kind = mixers_[static_cast<size_t>(i)].kind; kind != PENTAD_ATTENTION) {
      program.push_back(op(PENTAD_OP_CONVOLVE, i));
      if (parallel) feed();
      if (kind != PENTAD_CONVOLUTION) program.push_back(op(PENTAD_OP_RECUR, i));
      program.push_back(op(PENTAD_OP_GATE_OUT, i));
      give(PENTAD_OP_OUT, PENTAD_ATTN_OUT_NORM, PENTAD_ATTN_OUT_NORM_BIAS);
      if (!parallel) read(PENTAD_FFN_NORM, PENTAD_FFN_NORM_BIAS), feed();
      give(PENTAD_OP_DOWN, PENTAD_FFN_OUT_NORM, PENTAD_FFN_OUT_NORM_BIAS);
      return;
    }
    program.push_back(op(PENTAD_OP_QKV, i));
    program.back().rotation = draw_.from(-1, c_.rotation_count - 1);
    const bool gate = draw_.once_in(4);
    if (gate) set(PENTAD_ATTN_GATE, i, c_.heads * c_.head_dim, c_.width), program.push_back(op(PENTAD_OP_ATTN_GATE, i));
    if (parallel) feed();
    program.push_back(op(PENTAD_OP_ATTEND, i));
    program.back().gated = gate;
    if (draw_.once_in(4)) program.back().cap = draw_.real(0.5f, 3.0f);
    if (draw_.once_in(4)) set_vector(PENTAD_SLOPES, i, c_.heads);
    if (draw_.once_in(4)) set_vector(PENTAD_SINKS, i, c_.heads);
    program.back().window = draw_.once_in(3) ? draw_.from(64, 200) : 0;
    give(PENTAD_OP_OUT, PENTAD_ATTN_OUT_NORM, PENTAD_ATTN_OUT_NORM_BIAS);
    if (!parallel) read(PENTAD_FFN_NORM, PENTAD_FFN_NORM_BIAS), feed();
    give(PENTAD_OP_DOWN, PENTAD_FFN_OUT_NORM, PENTAD_FFN_OUT_NORM_BIAS);
  }

  void release(Text& text) {
    for (int32_t block : text.blocks)
      if (--held_[block] == 0) free_.push_back(block);
    text = {};
  }
  bool grow(Text& text, int tokens) {
    const size_t needed = static_cast<size_t>((text.tokens + tokens + kBlockTokens - 1) / kBlockTokens);
    if (needed > text.blocks.size() + free_.size()) return false;
    while (text.blocks.size() < needed) {
      std::swap(free_[static_cast<size_t>(draw_.below(static_cast<int>(free_.size())))], free_.back());
      text.blocks.push_back(free_.back());
      held_[free_.back()] = 1;
      free_.pop_back();
    }
    return true;
  }
  // Another sequence behind the full blocks of one that is there.
  void fork() {
    if (texts_.empty()) return;
    const Text& leader = texts_[static_cast<size_t>(draw_.below(static_cast<int>(texts_.size())))];
    const int full = leader.tokens / kBlockTokens;
    Text text;
    text.blocks.assign(leader.blocks.begin(), leader.blocks.begin() + full);
    text.tokens = full * kBlockTokens;
    text.row = rows_++;
    for (int32_t block : text.blocks) held_[block]++;
    texts_.push_back(text);
  }

  struct Batch {
    std::vector<int32_t> ids, positions, slots, starts{0}, contexts, tables, rows, argmax, drafted, tree_slots;
    std::vector<uint64_t> masks;
    std::vector<float> embeddings;
    std::vector<int32_t> lines;
    std::vector<int32_t> states, saves;
    std::vector<float> logits;
    pentad_batch b{};
  };

  bool add(Batch& batch, Text& text) {
    const bool first = text.tokens == 0;
    int count = first || draw_.once_in(3) ? draw_.from(1, 90) : 1, draft = 0;
    const bool decodes = !first && count == 1;
    if (decodes && !states_ && draw_.once_in(3)) draft = draw_.from(1, 20);
    count = std::min(count + draft, c_.max_context - text.tokens);
    draft = std::min(draft, count - 1);
    if (count < 1 || !grow(text, count)) return false;
    const bool tree = draft > 0 && draw_.once_in(2);
    std::vector<int> depth(static_cast<size_t>(std::max(draft, 0)));
    std::vector<uint64_t> seen(depth.size());
    for (int i = 0; i < draft; i++) {
      const int parent = tree ? draw_.from(-1, i - 1) : i - 1;
      depth[static_cast<size_t>(i)] = parent < 0 ? 1 : depth[static_cast<size_t>(parent)] + 1;
      seen[static_cast<size_t>(i)] = (parent < 0 ? 0 : seen[static_cast<size_t>(parent)]) | uint64_t{1} << i;
    }
    const int plain = count - draft;
    for (int i = 0; i < count; i++) {
      const int at = text.tokens + i, node = i - plain;
      batch.ids.push_back(draw_.below(c_.vocab));
      batch.positions.push_back(node >= 0 ? text.tokens + plain - 1 + depth[static_cast<size_t>(node)] : at);
      batch.slots.push_back(text.blocks[static_cast<size_t>(at / kBlockTokens)] * kBlockTokens + at % kBlockTokens);
      batch.masks.push_back(tree && node >= 0 ? seen[static_cast<size_t>(node)] : 0);
      if (i + 1 >= plain && (draft || draw_.once_in(2))) batch.rows.push_back(static_cast<int32_t>(batch.ids.size()) - 1);
    }
    batch.starts.push_back(static_cast<int32_t>(batch.ids.size()));
    batch.contexts.push_back(text.tokens + count);
    batch.drafted.push_back(draft);
    batch.tree_slots.push_back(tree ? draft : 0);
    text.tokens += plain;  // drafts are rejected
    return true;
  }

  bool step() {
    while (texts_.size() < 2 || (texts_.size() < 12 && draw_.once_in(2)))
      if (draw_.once_in(3) && !texts_.empty()) fork();
      else texts_.emplace_back(), texts_.back().row = rows_++;
    Batch batch;
    std::vector<const Text*> members;
    for (Text& text : texts_)
      if (draw_.below(4) && add(batch, text)) members.push_back(&text);
    if (!members.empty() && !compute(batch, members)) return false;
    if (!between_steps()) return false;
    for (Text& text : texts_)
      if (draw_.once_in(5) || text.tokens >= c_.max_context) release(text);
    std::erase_if(texts_, [](const Text& text) { return text.blocks.empty(); });
    return true;
  }

  // Gives some tokens inputs of their own.
  void embed(Batch& batch) {
    const int lines = draw_.from(1, 4);
    batch.embeddings.assign(static_cast<size_t>(lines) * static_cast<size_t>(c_.width), 0.5f);
    for (int i = 0; i < batch.b.tokens; i++) batch.lines.push_back(draw_.from(-1, lines - 1));
    batch.b.embeddings = batch.embeddings.data(), batch.b.embedding_rows = batch.lines.data();
    batch.b.embedding_count = lines;
  }

  // Rows of states, and of what is saved of some.
  void name_states(Batch& batch, const std::vector<const Text*>& members) {
    for (size_t i = 0; i < members.size(); i++) {
      batch.states.push_back(members[i]->row);
      if (draw_.below(3)) continue;
      const int32_t tokens = batch.starts[i + 1] - batch.starts[i];
      batch.saves.insert(batch.saves.end(), {static_cast<int32_t>(i), draw_.from(1, tokens), rows_++});
    }
    batch.b.state_rows = batch.states.data(), batch.b.state_saves = batch.saves.data();
    batch.b.save_count = static_cast<int32_t>(batch.saves.size() / 3);
  }

  bool compute(Batch& batch, const std::vector<const Text*>& members) {
    size_t width = 0;
    for (const Text* text : members) width = std::max(width, text->blocks.size());
    for (const Text* text : members) {
      batch.tables.insert(batch.tables.end(), text->blocks.begin(), text->blocks.end());
      batch.tables.resize(batch.tables.size() + width - text->blocks.size(), -1);
    }
    batch.argmax.resize(batch.rows.size());
    pentad_batch& b = batch.b;
    b.tokens = static_cast<int32_t>(batch.ids.size()), b.sequences = static_cast<int32_t>(members.size());
    b.rows = static_cast<int32_t>(batch.rows.size()), b.table_width = static_cast<int32_t>(width);
    b.token_ids = batch.ids.data(), b.positions = batch.positions.data(), b.slots = batch.slots.data();
    b.starts = batch.starts.data(), b.context_lens = batch.contexts.data(), b.block_tables = batch.tables.data();
    b.logit_rows = batch.rows.data(), b.argmax = batch.argmax.data();
    if (std::any_of(batch.drafted.begin(), batch.drafted.end(), [](int n) { return n > 0; })) b.drafted = batch.drafted.data();
    if (std::any_of(batch.tree_slots.begin(), batch.tree_slots.end(), [](int n) { return n > 0; }))
      b.tree_slots = batch.tree_slots.data(), b.tree_masks = batch.masks.data();
    if (draw_.once_in(4)) embed(batch);
    if (states_) name_states(batch, members);
    pentad_set_threads(model_, draw_.from(1, 4));
    pentad_set_timed(model_, draw_.below(2));
    if (!refuses_broken(batch)) return false;
    int wrong;
    if (draw_.once_in(4)) {
      batch.logits.resize(batch.rows.size() * static_cast<size_t>(c_.vocab));
      b.logits = batch.logits.data(), b.argmax = nullptr;
      wrong = pentad_step(model_, &b);
    } else {
      wrong = draw_.once_in(3) ? pentad_step(model_, &b) : step_draw(b);
    }
    if (wrong) std::printf("fuzz: step returned %d\n", wrong);
    return wrong == 0;
  }

  // One number of a sound batch made wrong: it is refused, and nothing was touched.
  bool refuses_broken(Batch& batch) {
    if (!draw_.once_in(3)) return true;
    pentad_batch& b = batch.b;
    const int32_t bad = draw_.one_of<int32_t>({-1, INT32_MIN, INT32_MAX, INT32_MAX - 15});
    std::vector<int32_t>* lists[] = {&batch.ids, &batch.positions, &batch.slots, &batch.contexts, &batch.rows,
                                     &batch.states};
    std::vector<int32_t>& list = *lists[draw_.below(6)];
    if (list.empty()) return true;
    int32_t& number = list[static_cast<size_t>(draw_.below(static_cast<int>(list.size())))];
    const int32_t kept = std::exchange(number, bad);
    const int wrong = pentad_step(model_, &b);
    number = kept;
    if (!wrong) return fail("a broken batch was taken");
    const int32_t rows = std::exchange(b.rows, b.tokens + 1);
    const int more = pentad_step(model_, &b);
    b.rows = rows;
    return more ? true : fail("more rows than tokens were taken");
  }

  int step_draw(pentad_batch& b) {
    std::vector<int32_t> lines(static_cast<size_t>(b.rows), -1), ids;
    std::vector<double> biases;
    std::vector<pentad_draw_row> rows;
    std::vector<std::vector<uint32_t>> masks;
    std::vector<std::vector<float>> raws;
    masks.reserve(lines.size()), raws.reserve(lines.size());
    int alternatives = 0;
    for (auto& line : lines) {
      if (draw_.once_in(3)) continue;
      line = static_cast<int32_t>(rows.size());
      pentad_draw_row row{};
      row.temperature = draw_.one_of({0.0, 5e-324, 1e-300, 1e-6, 0.7, 2.0});
      row.top_p = draw_.one_of({0.0, 0.5, 0.99, 1.0});
      row.min_p = draw_.one_of({0.0, 0.1, 1.0});
      row.repetition_penalty = draw_.one_of({1.0, 5e-324, 0.01, 10.0});
      row.presence_penalty = draw_.real(-2, 2), row.frequency_penalty = draw_.real(-2, 2);
      row.seed = draw_.source(), row.choice = draw_.source(), row.position = draw_.source();
      row.top_k = draw_.one_of({0, 1, 7, c_.vocab, INT32_MAX});
      row.alternatives = draw_.one_of({-1, 0, 3, 20});
      row.alternatives_at = alternatives;
      alternatives += std::max(0, row.alternatives);
      const auto list = [&](int32_t& first, int32_t& count) {
        first = static_cast<int32_t>(ids.size()), count = draw_.from(0, 6);
        for (int i = 0; i < count; i++) ids.push_back(draw_.once_in(9) ? draw_.one_of<int32_t>({-1, INT32_MAX}) : draw_.below(c_.vocab));
      };
      list(row.seen, row.seen_count);
      list(row.counted, row.counted_count);
      for (int i = 0; i < row.counted_count; i++) ids.push_back(draw_.from(1, 9));
      list(row.biased, row.biased_count);
      row.biases = static_cast<int32_t>(biases.size());
      for (int i = 0; i < row.biased_count; i++) biases.push_back(draw_.real(-100, 100));
      list(row.banned, row.banned_count);
      if (draw_.once_in(2)) {
        masks.emplace_back(static_cast<size_t>(draw_.from(0, c_.vocab / 32 + 3)));
        for (auto& word : masks.back()) word = static_cast<uint32_t>(draw_.source());
        row.mask = masks.back().data(), row.mask_words = static_cast<int32_t>(masks.back().size());
      }
      if (draw_.once_in(6)) row.raw = raws.emplace_back(static_cast<size_t>(c_.vocab)).data();
      rows.push_back(row);
    }
    std::vector<pentad_drawn> drawn(rows.size());
    std::vector<int32_t> tokens(static_cast<size_t>(alternatives));
    std::vector<double> logprobs(tokens.size());
    pentad_draws draws{static_cast<int32_t>(rows.size()), 0, lines.data(), rows.data(), ids.data(), biases.data(), drawn.data(),
                       tokens.data(), logprobs.data()};
    const int wrong = pentad_step_draw(model_, &b, &draws);
    for (size_t i = 0; i < drawn.size() && !wrong; i++)
      if (!rows[i].raw && (drawn[i].token < -1 || drawn[i].token >= c_.vocab)) return 99;
    return wrong;
  }

  // A step of sequences whose heads have any pages, each its own, and lengths; and moves between any places.
  bool step_by_head() {
    const int heads = c_.layers * c_.kv_heads, pages = c_.num_blocks * heads, count = draw_.from(1, 3), from = draw_.below(pages);
    const int width = draw_.from(1, std::min(5, c_.num_blocks / count)), most = std::min(c_.max_context, width * kBlockTokens);
    std::vector<int32_t> ids, positions, slots(static_cast<size_t>(count), -1), starts{0}, contexts, rows, tables, lens;
    for (int s = 0; s < count; s++) {
      ids.push_back(draw_.below(c_.vocab)), positions.push_back(draw_.below(c_.max_context));
      starts.push_back(s + 1), contexts.push_back(most), rows.push_back(s);
    }
    for (int i = 0; i < count * heads * width; i++) tables.push_back((from + i) % pages);
    for (int i = 0; i < count * heads; i++) lens.push_back(draw_.from(1, most));
    std::vector<int32_t> argmax(rows.size());
    pentad_batch b{};
    b.tokens = b.sequences = b.rows = b.by_head = count, b.head_width = width;
    b.token_ids = ids.data(), b.positions = positions.data(), b.slots = slots.data(), b.starts = starts.data();
    b.context_lens = contexts.data(), b.block_tables = slots.data(), b.logit_rows = rows.data(), b.argmax = argmax.data();
    b.head_pages = tables.data(), b.head_lens = lens.data();
    if (const int wrong = pentad_step(model_, &b); wrong != 0 && wrong != 9) return fail("a step by head");
    std::vector<int32_t>& list = draw_.below(2) ? tables : lens;
    const int32_t kept = std::exchange(list[0], draw_.one_of<int32_t>({-1, INT32_MIN, INT32_MAX}));
    if (pentad_step(model_, &b) != 9) return fail("a step by head of no page was taken");
    list[0] = kept;
    std::vector<int64_t> moves;
    for (int i = 0; i < 20; i++) {
      moves.push_back(static_cast<int64_t>(draw_.below(pages)) * kBlockTokens + draw_.below(kBlockTokens));
      moves.push_back((static_cast<int64_t>(from) * kBlockTokens + i) % (static_cast<int64_t>(pages) * kBlockTokens));
    }
    if (pentad_move_entries(model_, moves.data(), 20)) return fail("moves");
    moves[7] = static_cast<int64_t>(pages) * kBlockTokens;
    if (!pentad_move_entries(model_, moves.data(), 20)) return fail("moves to no page");
    return true;
  }

  bool between_steps() {
    if (!states_ && draw_.once_in(4) && !step_by_head()) return false;
    if (states_ && draw_.once_in(3) && pentad_copy_state(model_, draw_.below(rows_), draw_.below(rows_))) return fail("a state");
    if (!pentad_copy_state(model_, -1, 0)) return fail("a state of no row");
    if (free_.size() > 1 && draw_.once_in(3) && pentad_copy_block(model_, draw_.below(c_.num_blocks), free_.back())) return fail("copy");
    if (!pentad_copy_block(model_, -1, 0) || !pentad_copy_block(model_, 0, c_.num_blocks)) return fail("a copy of no block");
    if (draw_.once_in(3) && !free_.empty()) {
      std::vector<int32_t> pairs;
      for (int i = 0; i < 4; i++) pairs.push_back(draw_.below(c_.num_blocks * kBlockTokens)), pairs.push_back(free_.back() * kBlockTokens + i);
      if (pentad_copy_slots(model_, pairs.data(), 4)) return fail("slots");
      pairs[2] = c_.num_blocks * kBlockTokens;
      if (!pentad_copy_slots(model_, pairs.data(), 4)) return fail("slots of no block");
    }
    if (draw_.once_in(6)) {
      std::vector<uint16_t> page(static_cast<size_t>(c_.head_dim) * 32);
      pentad_read_block(model_, draw_.below(c_.layers), draw_.below(c_.kv_heads), draw_.below(c_.num_blocks), draw_.from(-1, 40), page.data());
    }
    if (draw_.once_in(6)) {
      std::vector<double> scores(static_cast<size_t>(c_.layers) * static_cast<size_t>(c_.kv_heads) * kBlockTokens);
      const int32_t page = draw_.from(-1, c_.num_blocks * c_.layers * c_.kv_heads);
      pentad_page_scores(model_, &page, 1, scores.data());
    }
    return true;
  }

  Random draw_;
  pentad_config c_{};
  pentad_model* model_ = nullptr;
  bool paired_ = 0, states_ = false;
  std::vector<pentad_mixer> mixers_;
  int rows_ = 0;  // of states
  std::vector<Text> texts_;
  std::vector<int32_t> free_;
  std::map<int32_t, int> held_;
};

}  // namespace

int main(int count, char** words) {
  const auto number = [&](int i, long otherwise) { return count > i ? std::atol(words[i]) : otherwise; };
  const long seed = number(1, 1), models = number(2, 20), steps = number(3, 20);
  for (long i = 0; i < models; i++)
    if (!Fuzz(static_cast<uint64_t>(seed + i)).run(static_cast<int>(steps))) {
      std::printf("fuzz: seed %ld failed on %s\n", seed + i, pentad_kernels());
      return 1;
    }
  std::printf("fuzz: %ld models, %ld steps each, from seed %ld on %s\n", models, steps, seed, pentad_kernels());
  return 0;
}
