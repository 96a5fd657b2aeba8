// One transformer step over a ragged batch: the phases of a layer, split over the team.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#include "attention.h"
#include "attention_tiles.h"
#include "dot.h"
#include "guard.h"
#include "native.h"
#include "pack.h"
#include "products.h"
#include "sampling.h"
#include "threads.h"

namespace pentad {

namespace {

// Zeroed memory on 2 MB pages where the system has them.
class Arena {
 public:
  explicit Arena(size_t bytes) : bytes_(bytes) {
    if (!bytes) return;
#if defined(__linux__)
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    madvise(data_, bytes, MADV_HUGEPAGE);
#else
    data_ = std::calloc(1, bytes);
    if (!data_) throw std::bad_alloc();
#endif
  }
  ~Arena() {
    if (!data_) return;
#if defined(__linux__)
    munmap(data_, bytes_);
#else
    std::free(data_);
#endif
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

struct Weights {
  Matrix matrix;
  std::unique_ptr<Arena> memory;
};

struct LayerWeights {
  Weights q, k, v, o, gate, up, down;
  std::vector<float> attn_norm, ffn_norm, q_bias, k_bias, v_bias;
};

enum Phase { kEmbed = 0, kQkv, kAttention, kOut, kGateUp, kDown, kHead, kPhases };

int pad(int n, int to) { return (n + to - 1) / to * to; }

}  // namespace

class Model {
 public:
  explicit Model(const pentad_config& c)
      : c_(c),
        team_(c.threads),
        products_(team_.size()),
        frequencies_(c.inverse_frequencies, c.inverse_frequencies + c.rope_dim / 2),
        windows_(static_cast<size_t>(c.layers), c.window),
        layers_(static_cast<size_t>(c.layers)),
        kv_(kv_block_bytes() * static_cast<size_t>(c.num_blocks)),
        tallies_(tallies_of_block() * sizeof(Tally) * static_cast<size_t>(c.num_blocks)) {
    q_dim_ = c.heads * c.head_dim;
    kv_dim_ = c.kv_heads * c.head_dim;
    wide_ = std::max({c.width, q_dim_, pad(c.ffn_width, 32)});
    score_stride_ = pad(c.max_context, 16) + 16;
    for (int i = 0; i < team_.size(); i++) {
      scores_.emplace_back(products_.tiles() ? 0 : static_cast<size_t>(kRowsTogether) * score_stride_);
      tails_.emplace_back(static_cast<size_t>(kTailBlocks) * kv_head_bytes());
      rooms_.emplace_back(coded() ? static_cast<size_t>(products_.tiles() ? kSpanBlocks : kCodedSpan) * kPage * c.head_dim : 0);
      queries_.emplace_back(static_cast<size_t>(kRowsAtOnce) * c.head_dim / 2);
      normed_.emplace_back(static_cast<size_t>(c.width));
      hidden_.emplace_back();
    }
    samplers_ = std::vector<Sampler>(static_cast<size_t>(team_.size()));
#if PENTAD_TILES
    tile_scratch_ = std::vector<TileScratch>(static_cast<size_t>(team_.size()));
#endif
    reserve(c.max_tokens);
  }

  // Makes room for steps of so many tokens.
  void reserve(int tokens) {
    if (tokens <= capacity_) return;
    // A step of one token takes one row per thread; see norm_tokens.
    const int capacity = pad(std::max({tokens, 32, team_.size()}), 32);
    const size_t n = static_cast<size_t>(capacity);
    x_.resize(n * c_.width);
    qkv_.resize(n * (q_dim_ + 2 * kv_dim_));
    attended_.resize(n * q_dim_);
    codes_.resize(n * wide_);
    scale_.resize(n * wide_ / 32);
    total_.resize(n * wide_ / 32);
    sum_.resize(n * wide_ / 16);
    const size_t ffn = n * static_cast<size_t>(pad(c_.ffn_width, 32));
    hidden_codes_.resize(ffn);
    hidden_scale_.resize(ffn / 32);
    hidden_total_.resize(ffn / 32);
    hidden_sum_.resize(ffn / 16);
    if (products_.tiles()) {
      wide_values_.resize(n * wide_);
      hidden_values_.resize(ffn);
    }
    for (auto& h : hidden_) h.resize(n * kBlock);
    capacity_ = capacity;  // last: what could not be had must be asked for again
  }

  int set(int tensor, int layer, Format format, const uint8_t* data, int rows, int cols, bool interleaved) {
    if (std::vector<float>* v = vector_of(tensor, layer)) {
      if (format != Format::F32) return -1;
      v->assign(reinterpret_cast<const float*>(data), reinterpret_cast<const float*>(data) + cols);
      if (interleaved) *v = unpair(*v);
      return 0;
    }
    Weights& w = matrix_of(tensor, layer);
    auto memory = std::make_unique<Arena>(pentad_packed_bytes(static_cast<int32_t>(format), rows, cols) + 64);
    if (pack(format, data, rows, cols, interleaved, memory->data())) return -1;
    attach(tensor, layer, format, rows, cols, memory->data());
    w.memory = std::move(memory);
    return 0;
  }
  int pack(Format format, const uint8_t* data, int rows, int cols, bool interleaved, uint8_t* out) {
    if (cols % kBlock) return -1;
    std::vector<int32_t> order(static_cast<size_t>(pad(rows, kRows)), -1);
    for (int r = 0; r < rows; r++) order[r] = interleaved ? paired_row(r) : r;
    const int groups = pad(rows, kRows) / kRows;
    const size_t group_bytes = pentad_packed_bytes(static_cast<int32_t>(format), kRows, cols);
    team_.run([&](int rank) {
      auto [begin, end] = share(groups, rank);
      pack_rows(format, data, cols, order.data() + static_cast<size_t>(begin) * kRows, (end - begin) * kRows,
                out + group_bytes * static_cast<size_t>(begin));
    });
    return 0;
  }
  int attach(int tensor, int layer, Format format, int rows, int cols, const uint8_t* packed) {
    if (cols % kBlock) return -1;
    matrix_of(tensor, layer).matrix = {layout_of(format), pad(rows, kRows), cols, packed};
    return 0;
  }
  int set_windows(const int32_t* windows) {
    windows_.assign(windows, windows + c_.layers);
    return 0;
  }
  int watch(const void* begin, size_t bytes) {
    watch_ = std::make_unique<FileWatch>(begin, bytes);
    return 0;
  }

  int ready() {
    if (!embed_.matrix.data || final_norm_.size() != static_cast<size_t>(c_.width)) return -1;
    for (auto& l : layers_) {
      for (Weights* w : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down})
        if (!w->matrix.data) return -1;
      for (auto* norm : {&l.attn_norm, &l.ffn_norm})
        if (norm->size() != static_cast<size_t>(c_.width)) return -1;
    }
    std::vector<std::vector<float>> centres;
    for (auto& l : layers_) centres.push_back(slow_part(l.k_bias));
    centres_ = std::move(centres);
    products_.reserve(std::max({c_.width, q_dim_, pad(c_.ffn_width, 32)}));
    return 0;
  }

  size_t kv_block_bytes() const {
    return static_cast<size_t>(c_.layers) * c_.kv_heads * kv_head_bytes();
  }
  // KV and tallies.
  size_t block_bytes() const { return kv_block_bytes() + tallies_of_block() * sizeof(Tally); }
  size_t weight_bytes() const {
    size_t n = embed_.matrix.bytes() + (head_.matrix.data ? head_.matrix.bytes() : 0);
    for (auto& l : layers_)
      for (const Weights* w : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) n += w->matrix.bytes();
    return n;
  }
  int copy_block(int source, int target) {
    for (int block : {source, target})
      if (block < 0 || block >= c_.num_blocks) return -1;
    if (source == target) return 0;
    std::memcpy(kv_.data() + kv_block_bytes() * static_cast<size_t>(target),
                kv_.data() + kv_block_bytes() * static_cast<size_t>(source), kv_block_bytes());
    std::copy_n(tallies(0, source), tallies_of_block(), tallies(0, target));
    return 0;
  }
  int attention_scores(int block, double* out) const {
    if (!tallies_of_block() || block < 0 || block >= c_.num_blocks) return -1;
    for (size_t i = 0; i < tallies_of_block(); i++)
      for (int slot = 0; slot < kPage; slot++) *out++ = tallies(static_cast<int>(i), block)->at(slot);
    return 0;
  }
  int copy_slots(const int32_t* pairs, int count) {
    for (int64_t i = 0; i < 2 * static_cast<int64_t>(count); i++)
      if (pairs[i] < 0 || pairs[i] / kPage >= c_.num_blocks) return -1;
    team_.run([&](int rank) {
      auto [begin, end] = share(c_.layers * c_.kv_heads, rank);
      for (int i = begin; i < end; i++)
        for (int k = 0; k < count; k++) {
          const int from = pairs[2 * k], to = pairs[2 * k + 1];
          copy_slot(kv_head(0, i, from / kPage), from % kPage, kv_head(0, i, to / kPage), to % kPage, c_.head_dim,
                    coded());
          if (tallies_of_block())
            tallies(i, to / kPage)->slot[to % kPage] = tallies(i, from / kPage)->slot[from % kPage];
        }
    });
    return 0;
  }
  // The keys and values of one block as attention reads them, were it block `place` of its text.
  int read_block(int layer, int head, int block, int place, uint16_t* out) {
    if (layer < 0 || layer >= c_.layers || head < 0 || head >= c_.kv_heads || block < 0 || block >= c_.num_blocks) return -1;
    if (place < 0 || place >= (c_.max_context + kPage - 1) / kPage) return -1;
    grow_turns((place + 1) * kPage);
    const std::vector<int32_t> table(static_cast<size_t>(place) + 1, block);
    const Pages pages = pages_of(table.data(), layer, head);
    if (coded()) pages.unpacked(place, 1, out);
    else std::memcpy(out, pages.block(place), kv_head_bytes());
    const KeyCentre centre = centre_of(layer, head);
    if (!centre.bias) return 0;
    float middle[256];
    centre.at(place, middle);
    for (int d = 0; d < c_.head_dim; d++)
      for (int i = 0; i < kPage; i++) {
        uint16_t& kept = out[(d / 2 * kPage + i) * 2 + d % 2];
        kept = to_bf16(std::bit_cast<float>(static_cast<uint32_t>(kept) << 16) + middle[d]);
      }
    return 0;
  }

  // What is wrong with a batch; see native.h.
  int check(const pentad_batch& b) const {
    if (b.tokens < 0 || b.sequences < 0 || b.table_width < 0) return 2;
    if (b.rows < 0 || b.rows > b.tokens) return 5;
    for (int t = 0; t < b.tokens; t++) {
      if (b.token_ids[t] < 0 || b.token_ids[t] >= c_.vocab) return 1;
      if (b.positions[t] < 0 || b.positions[t] >= c_.max_context) return 2;
      if (b.slots[t] < 0 || b.slots[t] / kPage >= c_.num_blocks) return 3;
    }
    if (b.starts[0] != 0 || b.starts[b.sequences] != b.tokens) return 2;
    for (int s = 0; s < b.sequences; s++) {
      const int context = b.context_lens[s], n = b.starts[s + 1] - b.starts[s];
      if (n < 0 || context < n || context > c_.max_context) return 2;
      if ((context + kPage - 1) / kPage > b.table_width) return 4;
      const int32_t* table = b.block_tables + static_cast<size_t>(s) * b.table_width;
      for (int i = 0; i * kPage < context; i++)
        if (table[i] < 0 || table[i] >= c_.num_blocks) return 4;
      if (b.drafted && (b.drafted[s] < 0 || b.drafted[s] > n)) return 7;
      if (const int wrong = check_tree(b, s)) return wrong;
    }
    for (int r = 0; r < b.rows; r++)
      if (b.logit_rows[r] < 0 || b.logit_rows[r] >= b.tokens) return 5;
    return 0;
  }

  // Every token of a tree sees its own slot and none that is not of the tree.
  static int check_tree(const pentad_batch& b, int s) {
    if (!b.tree_slots) return 0;
    const int context = b.context_lens[s], slots = b.tree_slots[s], end = b.starts[s + 1];
    if (slots < 0 || slots > 64 || slots > context) return 7;
    for (int t = b.starts[s]; t < end; t++) {
      if (!b.tree_masks[t]) continue;
      const int own = slots - (end - t);
      if (own < 0 || b.tree_masks[t] >> own != 1) return 7;
    }
    return 0;
  }

  // `draws` names the rows whose logits are kept to draw from; without it `b.logits` takes all.
  int step(const pentad_batch& b, const pentad_draws* draws = nullptr) {
    if (const int wrong = check(b)) return wrong;
    batch_ = &b;
    draws_ = draws && draws->count ? draws : nullptr;
    try {
      prepare();
    } catch (const std::exception&) {  // nothing is allocated behind this, but by draw(), which sees to it
      return 6;
    }
    team_.run([this](int rank) { work(rank); });
    if (b.argmax) {
      for (int r = 0; r < b.rows; r++) {
        Best top{-INFINITY, -1};
        for (int k = 0; k < team_.active(); k++) {
          const Best& one = best_[static_cast<size_t>(k) * b.rows + r];
          if (one.value > top.value || (one.value == top.value && one.token < top.token)) top = one;
        }
        b.argmax[r] = std::isfinite(top.value) ? top.token : -1;
      }
    }
    return watch_ && watch_->lost() ? 8 : 0;
  }

  Team& team() { return team_; }
  const double* times() const { return times_; }
  void set_timed(bool timed) { timed_ = timed; }

 private:
  static constexpr int kRowsAtOnce = 64;
  static constexpr int kCommonFrom = 4;  // blocks from which sequences are read together

  struct Best {
    float value;
    int32_t token;
  };
  struct Unpacked {  // what a thread has unpacked last in this layer
    int sequence = -1, head = -1;
    Pages pages;
    Aligned<uint16_t> room;
  };
  // Attention of the same query tokens of some sequences with one key/value head, in rows: (sequence, token,
  // query head), the head fastest.
  struct Item {
    int32_t first, members;         // in members_: sequences that read the same first blocks
    int32_t common;                 // so many, where there are several
    int32_t head, begin, end;       // key/value head, query tokens of the step
    int32_t rows_begin, rows_end;   // of all rows
    int64_t row_cost;
  };

  // Takes all memory that the step will need, and plans it.
  void prepare() {
    const pentad_batch& b = *batch_;
    reserve(b.tokens);
    const size_t kept = draws_ ? static_cast<size_t>(draws_->count) * static_cast<size_t>(c_.vocab) : 0;
    if (kept > kept_.size()) kept_.resize(kept);
    if (coded() && products_.tiles()) reserve_unpacked(b);
    split_tokens();
    plan_attention();
    int limit = 0;
    for (int t = 0; t < b.tokens; t++) limit = std::max(limit, b.positions[t] + 1);
    grow_turns(limit);
    if (b.argmax) best_.assign(static_cast<size_t>(b.rows) * team_.size(), {-INFINITY, -1});
  }

  bool coded() const { return c_.kv_bits == 8; }
  size_t kv_head_bytes() const { return head_bytes(c_.head_dim, coded()); }
  // One layer and head of a block. All of a block lies together, so that memory is taken as blocks come
  // into use.
  uint8_t* kv_head(int layer, int head, int block) const {
    return kv_.data() + kv_block_bytes() * static_cast<size_t>(block) +
           (static_cast<size_t>(layer) * c_.kv_heads + head) * kv_head_bytes();
  }
  size_t tallies_of_block() const {
    return c_.attention_scores ? static_cast<size_t>(c_.layers) * static_cast<size_t>(c_.kv_heads) : 0;
  }
  // Of one layer and head, counted through, of a block; meaningless where none are kept.
  Tally* tallies(int number, int block) const {
    return reinterpret_cast<Tally*>(tallies_.data()) + tallies_of_block() * static_cast<size_t>(block) + number;
  }
  const int32_t* table_of(int sequence) const {
    return batch_->block_tables + static_cast<size_t>(sequence) * batch_->table_width;
  }
  Pages pages_of(const int32_t* table, int layer, int head) const {
    return {.table = table, .base = kv_head(layer, head, 0), .stride = kv_block_bytes(), .dim = c_.head_dim,
            .coded = coded(), .centres = centres_at(layer, head), .centres_stride = centres_stride(),
            .tallies = tallies_of_block() ? tallies(layer * c_.kv_heads + head, 0) : nullptr,
            .tallies_stride = tallies_of_block()};
  }
  KeyCentre centre_of(int layer, int head) const {
    const std::vector<float>& bias = centres_[static_cast<size_t>(layer)];
    if (bias.empty()) return {};
    return {.bias = bias.data() + head * c_.head_dim, .turns = turns_.data(), .dim = c_.head_dim, .rope_dim = c_.rope_dim,
            .rotated = coded()};
  }
  size_t centres_size() const { return static_cast<size_t>(c_.head_dim) * kPage * 2; }
  size_t centres_stride() const { return centres_size() * static_cast<size_t>(c_.layers) * static_cast<size_t>(c_.kv_heads); }
  const uint16_t* centres_at(int layer, int head) const {
    if (centre_pages_.empty() || centres_[static_cast<size_t>(layer)].empty()) return nullptr;
    return centre_pages_.data() + centres_size() * (static_cast<size_t>(layer) * c_.kv_heads + head);
  }
  // A bias of keys without the pairs that turn much within a block.
  std::vector<float> slow_part(std::vector<float> bias) const {
    const int half = c_.rope_dim / 2;
    for (size_t at = 0; at < bias.size(); at += static_cast<size_t>(c_.head_dim))
      for (int i = 0; i < half; i++)
        if (frequencies_[static_cast<size_t>(i)] >= kSlow) bias[at + i] = bias[at + half + i] = 0.0f;
    return bias;
  }

  int paired_row(int r) const {
    const int head = r / c_.head_dim, i = r % c_.head_dim, half = c_.rope_dim / 2;
    if (i >= c_.rope_dim) return r;
    return head * c_.head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
  }
  std::vector<float> unpair(const std::vector<float>& v) const {
    std::vector<float> out(v.size());
    for (size_t r = 0; r < v.size(); r++) out[r] = v[static_cast<size_t>(paired_row(static_cast<int>(r)))];
    return out;
  }

  Weights& matrix_of(int tensor, int layer) {
    if (tensor == PENTAD_EMBED) return embed_;
    if (tensor == PENTAD_HEAD) return head_;
    LayerWeights& l = layers_.at(static_cast<size_t>(layer));
    switch (tensor) {
      case PENTAD_Q: return l.q;
      case PENTAD_K: return l.k;
      case PENTAD_V: return l.v;
      case PENTAD_O: return l.o;
      case PENTAD_GATE: return l.gate;
      case PENTAD_UP: return l.up;
      default: return l.down;
    }
  }
  std::vector<float>* vector_of(int tensor, int layer) {
    if (tensor == PENTAD_FINAL_NORM) return &final_norm_;
    if (layer < 0) return nullptr;
    LayerWeights& l = layers_.at(static_cast<size_t>(layer));
    switch (tensor) {
      case PENTAD_ATTN_NORM: return &l.attn_norm;
      case PENTAD_FFN_NORM: return &l.ffn_norm;
      case PENTAD_Q_BIAS: return &l.q_bias;
      case PENTAD_K_BIAS: return &l.k_bias;
      case PENTAD_V_BIAS: return &l.v_bias;
      default: return nullptr;
    }
  }

  std::pair<int, int> share(int n, int rank) const { return share_of(n, rank, team_.active()); }

  // Activations as the dot kernels read them. A step of one token is normalised by every thread for
  // itself, into copy `rank`, which costs less than a barrier.
  Quantized quantized(int cols, int tokens, int copy = 0) {
    const size_t c = static_cast<size_t>(copy) * wide_;
    return {.cols = cols,
            .panel = products_.panel(tokens),
            .codes = codes_.data() + c,
            .scale = scale_.data() + c / 32,
            .total = total_.data() + c / 32,
            .sum = sum_.data() + c / 16};
  }
  Input input(int cols, int copy = 0) {
    return {.codes = quantized(cols, static_cast<int>(split_.exact.size()), copy),
            .wide = {.cols = cols, .values = wide_values_.data()},
            .split = &split_};
  }
  void norm_row(const float* x, const std::vector<float>& weight, float* out) const {
    f32x16 squares = splat(0.0f);
    for (int i = 0; i < c_.width; i += 16) squares += load(x + i) * load(x + i);
    const float scale = 1.0f / std::sqrt(hsum(squares) / static_cast<float>(c_.width) + c_.eps);
    for (int i = 0; i < c_.width; i += 16) store(out + i, load(x + i) * scale * load(weight.data() + i));
  }
  // Normalises the residual stream into the next input; returns it as this thread reads it.
  Input norm_tokens(const std::vector<float>& weight, int tokens, int rank) {
    float* normed = normed_[static_cast<size_t>(rank)].data();
    if (tokens == 1) {
      const Input out = input(c_.width, rank);
      norm_row(x_.data(), weight, normed);
      out.put(normed, 0, 0, c_.width / kBlock);
      return out;
    }
    const Input out = input(c_.width);
    auto [begin, end] = share(tokens, rank);
    for (int t = begin; t < end; t++) {
      norm_row(x_.data() + static_cast<size_t>(t) * c_.width, weight, normed);
      out.put(normed, t, 0, c_.width / kBlock);
    }
    team_.barrier();
    return out;
  }

  // A chunk of a prompt is computed in bf16. What is generated or drafted gets the same bits in every
  // batch, so it never is.
  void split_tokens() {
    const pentad_batch& b = *batch_;
    split_.clear();
    for (int s = 0; s < b.sequences; s++) {
      const int n = b.starts[s + 1] - b.starts[s];
      split_.add(!drafts(s) && products_.wide(n), n);
    }
  }
  bool drafts(int s) const {
    return (batch_->drafted && batch_->drafted[s]) || (batch_->tree_slots && batch_->tree_slots[s]);
  }

  int tokens_of(int s) const { return batch_->starts[s + 1] - batch_->starts[s]; }
  int group() const { return c_.heads / c_.kv_heads; }

  // Whether the codes of a sequence are unpacked once for several tiles.
  bool unpacks(int s) const {
    return coded() && products_.tiles() && !drafts(s) && tokens_of(s) * group() > kTileRows;
  }
  // Room for the longest of these sequences.
  void reserve_unpacked(const pentad_batch& b) {
    int blocks = 0;
    for (int s = 0; s < b.sequences; s++)
      if (unpacks(s)) blocks = std::max(blocks, (b.context_lens[s] + kPage - 1) / kPage);
    unpacked_.resize(static_cast<size_t>(team_.size()));
    for (Unpacked& u : unpacked_) {
      const size_t most = static_cast<size_t>(blocks) * c_.head_dim * kPage * 2;
      if (u.room.size() < most) u.room.resize(most);
    }
  }
  // The pages in bf16 from the block of slot `first` on, for tiles.
  const Pages& plain_pages(const Pages& pages, int sequence, int head, int first, Unpacked& u) const {
    if (u.sequence != sequence || u.head != head) {
      const int blocks = (batch_->context_lens[sequence] + kPage - 1) / kPage;
      u.pages = pages.unpacked(first / kPage, blocks - first / kPage, u.room.data());
      u.sequence = sequence, u.head = head;
    }
    return u.pages;
  }

  // Whether a sequence may be read together with others: on tiles, where it costs next to nothing that each
  // sees all of it.
  bool shares(int s) const {
    return products_.tiles() && tokens_of(s) == 1 && !drafts(s) && !tallies_of_block() &&
           std::all_of(windows_.begin(), windows_.end(), [](int window) { return !window; });
  }
  // Blocks that two sequences begin with.
  int common_blocks(int one, int other) const {
    const int most = (std::min(batch_->context_lens[one], batch_->context_lens[other]) + kPage - 1) / kPage;
    const int32_t *a = table_of(one), *b = table_of(other);
    return static_cast<int>(std::mismatch(a, a + most, b).first - a);
  }
  // Puts the sequences that are read together with `leader`, which has no place yet, behind it into members_;
  // returns how many blocks they have in common.
  int gather_members(int leader) {
    int common = 0;
    members_.push_back(leader);
    placed_[static_cast<size_t>(leader)] = true;
    for (int s = leader + 1; s < batch_->sequences && shares(leader); s++) {
      if (placed_[static_cast<size_t>(s)] || !shares(s)) continue;
      const int same = common_blocks(leader, s);
      if (same < std::max(common, kCommonFrom)) continue;
      if (!common) common = same;
      members_.push_back(s);
      placed_[static_cast<size_t>(s)] = true;
    }
    return common;
  }
  // What an item costs, in slots times rows: on tiles most of it is reading, once for as many rows as a tile has.
  int64_t cost(const Item& item, int rows) const {
    constexpr int kRead = 8;
    const int last = members_[static_cast<size_t>(item.first)];
    const int64_t slots = batch_->context_lens[last] - tokens_of(last) + item.end + kPage;
    if (!products_.tiles()) return slots * rows;
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows, common = item.common * kPage;
    if (item.members == 1) return slots * (rows + kRead * tiles);
    int64_t found = kRead * tiles * common;
    for (int i = item.first; i < item.first + item.members; i++) {
      const int64_t own = batch_->context_lens[members_[static_cast<size_t>(i)]] + kPage;
      found += own * group() + kRead * (own - common);
    }
    return found;
  }

  // Lists the attention of the step head by head, so that what a thread has read of one serves all that see it,
  // and cuts the list into equal costs, mid-item if need be.
  void plan_attention() {
    constexpr int kChunk = 16;  // query tokens
    const pentad_batch& b = *batch_;
    items_.clear();
    members_.clear();
    placed_.assign(static_cast<size_t>(b.sequences), false);
    for (int s = 0; s < b.sequences; s++) {
      if (placed_[static_cast<size_t>(s)]) continue;
      const int first = static_cast<int>(members_.size()), common = gather_members(s);
      const int members = static_cast<int>(members_.size()) - first, n = tokens_of(s);
      for (int h = 0; h < c_.kv_heads; h++)
        for (int begin = 0; begin < n; begin += kChunk) {
          const int end = std::min(n, begin + kChunk), rows = members * (end - begin) * group();
          items_.push_back({first, members, common, h, begin, end, 0, rows, 0});
          items_.back().row_cost = std::max<int64_t>(1, cost(items_.back(), rows) / rows);
        }
    }
    int64_t total = 0;
    for (auto& i : items_) total += static_cast<int64_t>(i.rows_end) * i.row_cost;
    const int64_t parts = team_.active();
    parts_.assign(static_cast<size_t>(parts), {});
    int64_t seen = 0;
    size_t part = 0;
    for (Item item : items_) {
      while (true) {
        const int64_t left = total * static_cast<int64_t>(part + 1) / parts - seen;
        const int rows = item.rows_end - item.rows_begin;
        int fit = static_cast<int>(std::min<int64_t>(rows, (left + item.row_cost / 2) / item.row_cost));
        if (part + 1 == static_cast<size_t>(parts)) fit = rows;
        if (fit > 0) {
          Item piece = item;
          piece.rows_end = item.rows_begin + fit;
          parts_[part].push_back(piece);
          seen += static_cast<int64_t>(fit) * item.row_cost;
          item.rows_begin += fit;
        }
        if (item.rows_begin == item.rows_end) break;
        part++;
      }
    }
  }

  // Cosines and sines of positions [0, limit), computed once.
  void grow_turns(int limit) {
    const int half = c_.rope_dim / 2, known = turns_known_;
    if (limit <= known) return;
    limit = pad(limit, 256);
    constexpr int kSpanned = kPage * kPage;  // tokens of one page of centres
    const bool centred = !std::all_of(centres_.begin(), centres_.end(), [](auto& bias) { return bias.empty(); });
    turns_.resize(static_cast<size_t>(limit) * c_.rope_dim);
    if (centred) centre_pages_.resize(centres_stride() * static_cast<size_t>(limit / kSpanned));
    turns_known_ = limit;
    for (int p = known; p < limit; p++)
      for (int i = 0; i < half; i++) {
        const double angle = static_cast<double>(p) * static_cast<double>(frequencies_[static_cast<size_t>(i)]);
        turns_[static_cast<size_t>(p) * c_.rope_dim + i] = static_cast<float>(std::cos(angle));
        turns_[static_cast<size_t>(p) * c_.rope_dim + half + i] = static_cast<float>(std::sin(angle));
      }
    if (!centred) return;
    for (int page = known / kSpanned; page < limit / kSpanned; page++)
      for (int layer = 0; layer < c_.layers; layer++)
        for (int head = 0; head < c_.kv_heads && !centres_[static_cast<size_t>(layer)].empty(); head++)
          write_centres(centre_of(layer, head), page * kPage,
                        centre_pages_.data() + centres_stride() * static_cast<size_t>(page) +
                            centres_size() * (static_cast<size_t>(layer) * c_.kv_heads + head));
  }

  void embed(int rank) {
    const pentad_batch& b = *batch_;
    auto [begin, end] = share(b.tokens, rank);
    for (int t = begin; t < end; t++)
      unpack_row(embed_.matrix, b.token_ids[t], x_.data() + static_cast<size_t>(t) * c_.width);
  }

  // A token's part of a head: queries first, then keys, then values, [heads][tokens][head_dim].
  float* head_row(int head, int token) {
    return qkv_.data() + (static_cast<size_t>(head) * static_cast<size_t>(batch_->tokens) + static_cast<size_t>(token)) * c_.head_dim;
  }

  void turn_head(float* x, int token) const {
    const int half = c_.rope_dim / 2;
    const float* turn = turns_.data() + static_cast<size_t>(batch_->positions[token]) * c_.rope_dim;
    int i = 0;
    for (; i + 16 <= half; i += 16) {
      const f32x16 a = load(x + i), b = load(x + i + half), cosine = load(turn + i), sine = load(turn + half + i);
      store(x + i, a * cosine - b * sine);
      store(x + i + half, a * sine + b * cosine);
    }
    for (; i < half; i++) {
      const float a = x[i], b = x[i + half];
      x[i] = a * turn[i] - b * turn[half + i];
      x[i + half] = a * turn[half + i] + b * turn[i];
    }
  }

  // Where the heads of a thread begin, queries in front of keys and values. Those are written to their slots as
  // well, which for many tokens takes another quarter of their time.
  int first_head(int rank) const {
    const int query = 4, written = batch_->tokens > 1 ? 5 : 4, queries = c_.heads * query;
    const int cost = (queries + 2 * c_.kv_heads * written) * rank / team_.active();
    return cost <= queries ? (cost + query / 2) / query : c_.heads + (cost - queries + written / 2) / written;
  }

  // Q, K and V of whole heads; RoPE and the cache write follow in the same thread.
  void qkv(const LayerWeights& l, int layer, int rank) {
    const Input in = norm_tokens(l.attn_norm, batch_->tokens, rank);
    const pentad_batch& b = *batch_;
    const int per_head = c_.head_dim / kRows;
    const int begin = first_head(rank), end = first_head(rank + 1);
    const struct {
      const Weights& w;
      const std::vector<float>& bias;
      int first, count;
    } parts[3] = {{l.q, l.q_bias, 0, c_.heads},
                  {l.k, l.k_bias, c_.heads, c_.kv_heads},
                  {l.v, l.v_bias, c_.heads + c_.kv_heads, c_.kv_heads}};
    for (auto& part : parts) {
      const int from = std::max(begin, part.first) - part.first, to = std::min(end, part.first + part.count) - part.first;
      if (from >= to) continue;
      products_.multiply(part.w.matrix, in, from * per_head, to * per_head, rank, [&](int group, int t, f32x16 v) {
        if (!part.bias.empty()) v += load(part.bias.data() + group * kRows);
        store(head_row(part.first + group / per_head, t) + group % per_head * kRows, v);
      });
      const bool key = part.first == c_.heads, value = part.first > c_.heads;
      for (int h = from; h < to; h++) {
        for (int t = 0; t < b.tokens; t++) {
          float* x = head_row(part.first + h, t);
          if (!value) turn_head(x, t);
          if (!value && coded()) rotate(x, c_.head_dim);
        }
        if (key || value) write_head(layer, h, key, part.first + h);
      }
    }
    team_.barrier();
  }

  // Writes a head's keys or values of all tokens to their slots; `row` is its number in qkv_.
  void write_head(int layer, int head, bool key, int row) {
    const pentad_batch& b = *batch_;
    const int dim = c_.head_dim;
    const KeyCentre centre = key ? centre_of(layer, head) : KeyCentre{};
    float middle[256];
    for (int t = 0, last = -1; t < b.tokens; t++) {
      float* x = head_row(row, t);
      uint8_t* block = kv_head(layer, head, b.slots[t] / kPage);
      if (key && tallies_of_block()) tallies(layer * c_.kv_heads + head, b.slots[t] / kPage)->slot[b.slots[t] % kPage] = 0;
      const int offset = b.slots[t] % kPage;
      if (!key && !offset) clear_values(block, dim, coded());
      if (centre.bias) {
        if (const int place = b.positions[t] / kPage; place != last) centre.at(last = place, middle);
        for (int d = 0; d < dim; d += 16) store(x + d, load(x + d) - load(middle + d));
      }
      uint16_t* page = reinterpret_cast<uint16_t*>(block);
      if (coded() && key) code_key(block, dim, offset, x);
      else if (coded()) code_value(block, dim, offset, x);
      else if (key) write_key(page, dim, offset, x);
      else write_value(page + dim * kPage, dim, offset, x);
    }
  }

  // Whether the token behind `t` is of a tree.
  static bool next_path(const pentad_batch& b, int t) { return t + 1 < b.tokens && b.tree_masks[t + 1]; }

  // Where the reading of an item begins, if its rows are read alone.
  Upcoming upcoming(const Item& item, int layer, int window) const {
    Upcoming found;
    const int members_rows = (item.end - item.begin) * group();
    const int s = members_[static_cast<size_t>(item.first + item.rows_begin / members_rows)];
    const Pages pages = pages_of(table_of(s), layer, item.head);
    const int context = batch_->context_lens[s], blocks = (context + kPage - 1) / kPage;
    const int first = window && context > window ? (context - window) / kPage : 0;
    for (; found.count < kAheadBlocks && first + found.count < blocks; found.count++)
      found.keys[found.count] = pages.block(first + found.count);
    return found;
  }

  // The rows of a thread that are attended to at once.
  struct Gathered {
    Row rows[kRowsAtOnce];
    std::pair<int, int> places[kRowsAtOnce];  // token, head
    Reader readers[kTileRows];
    int count = 0, readers_count = 0;
  };
  void attend(Gathered& g, [[maybe_unused]] const Item& item, float scale, const Upcoming& after, int rank) {
    const Workspace workspace{scores_[static_cast<size_t>(rank)].data(), score_stride_, rooms_[static_cast<size_t>(rank)].data()};
#if PENTAD_TILES
    if (products_.tiles())
      TileAttention(g.rows, g.count, g.readers, g.readers_count, item.common, scale, products_.shape(rank),
                    tile_scratch_[static_cast<size_t>(rank)], workspace.room)
          .run(after);
    else
#endif
      attend_rows(g.rows, g.count, g.readers[0].pages, scale, workspace, after);
    const Input next = input(q_dim_);
    const int per_head = c_.head_dim / kBlock;
    for (int i = 0; i < g.count; i++) next.put(g.rows[i].out, g.places[i].first, g.places[i].second * per_head, per_head);
    g.count = g.readers_count = 0;
  }

  void attention(int layer, int rank) {
    const pentad_batch& b = *batch_;
    const float scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
    const int window = windows_[static_cast<size_t>(layer)], most = products_.tiles() ? kTileRows : kRowsAtOnce;
    uint32_t* queries = queries_[static_cast<size_t>(rank)].data();
    uint8_t* tail = tails_[static_cast<size_t>(rank)].data();
    if (!unpacked_.empty()) unpacked_[static_cast<size_t>(rank)].sequence = -1;
    const std::vector<Item>& items = parts_[static_cast<size_t>(rank)];
    Gathered g;
    for (size_t number = 0; number < items.size(); number++) {
      const Item& item = items[number];
      const Upcoming after = number + 1 < items.size() ? upcoming(items[number + 1], layer, window) : Upcoming{};
      const int member_rows = (item.end - item.begin) * group();
      for (int r = item.rows_begin; r < item.rows_end; r++) {
        const int s = members_[static_cast<size_t>(item.first + r / member_rows)], tokens = tokens_of(s);
        const int token = item.begin + r % member_rows / group(), head = item.head * group() + r % group();
        const int t = b.starts[s] + token, before = b.context_lens[s] - tokens;
        const uint64_t path = b.tree_slots ? b.tree_masks[t] : 0;
        const int tree = b.tree_slots ? b.context_lens[s] - b.tree_slots[s] : 0;
        const int limit = path ? tree + std::popcount(path) : before + token + 1;
        if (!g.count || r % member_rows == 0) {
          Pages pages = pages_of(table_of(s), layer, item.head);
          if (path) pages = along_path(pages, tree, path, tail);
          else if (unpacks(s))
            pages = plain_pages(pages, s, item.head, window ? std::max(0, before + 1 - window) : 0, unpacked_[static_cast<size_t>(rank)]);
          g.readers[g.readers_count++] = {pages, g.count, g.count};
        }
        uint32_t* query = queries + static_cast<size_t>(g.count) * (c_.head_dim / 2);
        write_query(query, head_row(head, t), c_.head_dim);
        const bool drafted = b.drafted && token >= tokens - b.drafted[s];
        g.rows[g.count] = {query, window && limit > window ? limit - window : 0, limit,
                           attended_.data() + static_cast<size_t>(t) * q_dim_ + head * c_.head_dim, !path && !drafted};
        g.places[g.count++] = {t, head};
        g.readers[g.readers_count - 1].end = g.count;
        // A token of a tree has pages of its own, so the rows in front of its next head wait for nothing.
        const bool alone = b.tree_slots && (r + 1) % group() == 0 && (path || next_path(b, t));
        // The rows of a member stay together where they fit.
        const int next = (r + 1) % member_rows ? 1 : std::min(member_rows, most);
        if (r + 1 == item.rows_end || alone || g.count + next > most) attend(g, item, scale, after, rank);
      }
    }
    team_.barrier();
  }

  void add_product(const Matrix& m, const Input& x, int rank) {
    auto [begin, end] = share(m.rows / kRows, rank);
    products_.multiply(m, x, begin, end, rank, [&](int group, int t, f32x16 v) {
      float* p = x_.data() + static_cast<size_t>(t) * c_.width + group * kRows;
      store(p, load(p) + v);
    });
    team_.barrier();
  }

  // Gate and up in step: a thread owns whole blocks of 32 hidden columns and quantizes them at once.
  void gate_up(const LayerWeights& l, int rank) {
    const pentad_batch& b = *batch_;
    const Input in = norm_tokens(l.ffn_norm, b.tokens, rank);
    const int cols = l.gate.matrix.rows;
    auto [from, to] = share(cols / kBlock, rank);
    float* hidden = hidden_[static_cast<size_t>(rank)].data();
    const Input out = hidden_input(cols);
    const int exact = static_cast<int>(split_.exact.size());
    for (int block = from; exact && block < to; block++) {
      products_.multiply(l.gate.matrix, in.codes, exact, block * 2, block * 2 + 2, rank, [&](int group, int i, f32x16 v) {
        store(hidden + i * kBlock + (group & 1) * kRows, silu(v));
      });
      products_.multiply(l.up.matrix, in.codes, exact, block * 2, block * 2 + 2, rank, [&](int group, int i, f32x16 v) {
        float* p = hidden + i * kBlock + (group & 1) * kRows;
        store(p, load(p) * v);
      });
      for (int i = 0; i < exact; i++) quantize(hidden + i * kBlock, out.codes, i, block, 1);
    }
    for (int group = 2 * from; !split_.wide.empty() && group < 2 * to; group++)
      products_.multiply_wide(l.gate.matrix, l.up.matrix, in, group, rank,
                              [&](int i, f32x16 gate, f32x16 up) { out.wide.put(silu(gate) * up, i, group); });
    team_.barrier();
  }
  // The hidden layer's input must not overwrite what gate and up still read.
  Input hidden_input(int cols) {
    return {.codes = {.cols = cols,
                      .panel = products_.panel(static_cast<int>(split_.exact.size())),
                      .codes = hidden_codes_.data(),
                      .scale = hidden_scale_.data(),
                      .total = hidden_total_.data(),
                      .sum = hidden_sum_.data()},
            .wide = {.cols = cols, .values = hidden_values_.data()},
            .split = &split_};
  }
  void head(int rank) {
    const pentad_batch& b = *batch_;
    const Quantized in = quantized(c_.width, b.rows);
    auto [from, to] = share(b.rows, rank);
    for (int r = from; r < to; r++) {
      float* row = normed_[static_cast<size_t>(rank)].data();
      norm_row(x_.data() + static_cast<size_t>(b.logit_rows[r]) * c_.width, final_norm_, row);
      quantize(row, in, r, 0, c_.width / kBlock);
    }
    team_.barrier();
    const Matrix& m = head_.matrix.data ? head_.matrix : embed_.matrix;
    auto [begin, end] = share(m.rows / kRows, rank);
    Best* best = b.argmax ? best_.data() + static_cast<size_t>(rank) * b.rows : nullptr;
    products_.multiply(m, in, b.rows, begin, end, rank, [&](int group, int r, f32x16 v) {
      const int token = group * kRows, live = std::min(kRows, c_.vocab - token);
      const int line = draws_ ? draws_->lines[r] : b.logits ? r : -1;
      if (line >= 0) {
        float* out = (draws_ ? kept_.data() : b.logits) + static_cast<size_t>(line) * c_.vocab + token;
        if (live == kRows) store(out, v);
        else for (int i = 0; i < live; i++) out[i] = v[i];
      }
      if (best) {
        if (live < kRows) for (int i = live; i < kRows; i++) set_lane(v, i, -INFINITY);
        const float top = hmax(v);
        if (top > best[r].value)
          for (int i = 0; i < kRows; i++)
            if (v[i] == top) {
              best[r] = {top, token + i};
              break;
            }
      }
    });
  }
  void draw(int rank) {
    team_.barrier();
    auto [begin, end] = share(draws_->count, rank);
    for (int i = begin; i < end; i++)
      draws_->drawn[i] = samplers_[static_cast<size_t>(rank)].draw(
          kept_.data() + static_cast<size_t>(i) * static_cast<size_t>(c_.vocab), c_.vocab, draws_->rows[i], *draws_);
  }
  void work(int rank) {
    const bool timed = timed_ && rank == 0;
    auto mark = timed ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point{};
    auto lap = [&](Phase phase) {
      if (!timed) return;
      auto now = std::chrono::steady_clock::now();
      times_[phase] += std::chrono::duration<double>(now - mark).count();
      mark = now;
    };
    embed(rank);
    team_.barrier();
    lap(kEmbed);
    for (int i = 0; i < c_.layers; i++) {
      const LayerWeights& l = layers_[static_cast<size_t>(i)];
      qkv(l, i, rank);
      lap(kQkv);
      attention(i, rank);
      lap(kAttention);
      add_product(l.o.matrix, input(q_dim_), rank);
      lap(kOut);
      gate_up(l, rank);
      lap(kGateUp);
      add_product(l.down.matrix, hidden_input(l.down.matrix.cols), rank);
      lap(kDown);
    }
    if (batch_->rows) head(rank);
    if (draws_) draw(rank);
    lap(kHead);
    products_.release(rank);
  }

  pentad_config c_;
  Team team_;
  Products products_;
  std::vector<float> frequencies_;
  std::vector<int32_t> windows_;
  std::vector<LayerWeights> layers_;
  Weights embed_, head_;
  std::vector<float> final_norm_;
  Arena kv_, tallies_;
  std::unique_ptr<FileWatch> watch_;
  int turns_known_ = 0;  // positions whose turns are known
  int capacity_ = 0, q_dim_ = 0, kv_dim_ = 0, wide_ = 0, score_stride_ = 0;
  const pentad_batch* batch_ = nullptr;
  const pentad_draws* draws_ = nullptr;
  std::vector<Sampler> samplers_;
  std::vector<float> kept_;
  std::vector<float> turns_, scale_, total_, hidden_scale_, hidden_total_;
  Aligned<float> x_, qkv_, attended_;
  Aligned<int8_t> codes_, hidden_codes_;
  std::vector<int32_t> sum_, hidden_sum_;
  Aligned<uint16_t> wide_values_, hidden_values_;
  Split split_;
  std::vector<std::vector<float>> normed_, hidden_;
  std::vector<std::vector<float>> scores_;
  std::vector<std::vector<uint8_t>> tails_;
  std::vector<Aligned<uint16_t>> rooms_;
  std::vector<Unpacked> unpacked_;
  Aligned<uint16_t> centre_pages_;           // write_centres() of [256 tokens][layer][head]
  std::vector<std::vector<float>> centres_;  // of each layer: slow_part() of its bias of keys, or empty
  std::vector<std::vector<uint32_t>> queries_;
#if PENTAD_TILES
  std::vector<TileScratch> tile_scratch_;
#endif
  std::vector<int32_t> members_;
  std::vector<bool> placed_;
  std::vector<Item> items_;
  std::vector<std::vector<Item>> parts_;
  std::vector<Best> best_;
  double times_[8] = {};
  bool timed_ = false;
};

}  // namespace pentad

struct pentad_model {
  pentad::Model model;
};

extern "C" {

pentad_model* pentad_create(const pentad_config* c) {
  return pentad::guarded<pentad_model*>(nullptr, [&] { return new pentad_model{pentad::Model(*c)}; });
}
void pentad_destroy(pentad_model* m) { delete m; }
int pentad_set(pentad_model* m, int32_t tensor, int32_t layer, int32_t format, const void* data, int32_t rows,
               int32_t cols, int32_t interleaved) {
  return pentad::guarded(-1, [&] {
    return m->model.set(tensor, layer, static_cast<pentad::Format>(format), static_cast<const uint8_t*>(data), rows, cols,
                        interleaved != 0);
  });
}
int pentad_pack(pentad_model* m, int32_t format, const void* data, int32_t rows, int32_t cols, int32_t interleaved,
                void* out) {
  return pentad::guarded(-1, [&] {
    return m->model.pack(static_cast<pentad::Format>(format), static_cast<const uint8_t*>(data), rows, cols,
                         interleaved != 0, static_cast<uint8_t*>(out));
  });
}
int pentad_attach(pentad_model* m, int32_t tensor, int32_t layer, int32_t format, int32_t rows, int32_t cols,
                  const void* packed) {
  return pentad::guarded(-1, [&] {
    return m->model.attach(tensor, layer, static_cast<pentad::Format>(format), rows, cols,
                           static_cast<const uint8_t*>(packed));
  });
}
int pentad_set_windows(pentad_model* m, const int32_t* windows) {
  return pentad::guarded(-1, [&] { return m->model.set_windows(windows); });
}
int pentad_watch_weights(pentad_model* m, const void* begin, size_t bytes) {
  return pentad::guarded(-1, [&] { return m->model.watch(begin, bytes); });
}
int pentad_ready(pentad_model* m) {
  return pentad::guarded(-1, [&] { return m->model.ready(); });
}
int pentad_step(pentad_model* m, const pentad_batch* b) {
  return pentad::guarded(6, [&] { return m->model.step(*b); });
}
int pentad_step_draw(pentad_model* m, const pentad_batch* b, const pentad_draws* d) {
  return pentad::guarded(6, [&] { return m->model.step(*b, d); });
}
int pentad_copy_block(pentad_model* m, int32_t s, int32_t t) { return m->model.copy_block(s, t); }
int pentad_copy_slots(pentad_model* m, const int32_t* pairs, int32_t n) { return m->model.copy_slots(pairs, n); }
size_t pentad_weight_bytes(const pentad_model* m) { return m->model.weight_bytes(); }
int pentad_read_block(pentad_model* m, int32_t layer, int32_t head, int32_t block, int32_t place, uint16_t* out) {
  return pentad::guarded(-1, [&] { return m->model.read_block(layer, head, block, place, out); });
}
void pentad_code_row(const float* x, int32_t dim, int8_t* codes, uint16_t* step) {
  *step = pentad::code_row(x, dim, codes);
}
size_t pentad_block_bytes(const pentad_model* m) { return m->model.block_bytes(); }
int pentad_attention_scores(const pentad_model* m, int32_t block, double* out) {
  return m->model.attention_scores(block, out);
}
int32_t pentad_threads(pentad_model* m) { return m->model.team().size(); }
void pentad_set_threads(pentad_model* m, int32_t n) { m->model.team().set_active(n); }
void pentad_set_timed(pentad_model* m, int32_t timed) { m->model.set_timed(timed != 0); }
void pentad_times(const pentad_model* m, double* s) { std::copy(m->model.times(), m->model.times() + 8, s); }
const char* pentad_kernels(void) {
#if defined(__AMX_BF16__)
  return "avx512-vnni+amx-bf16";
#elif defined(__AVX512VNNI__)
  return "avx512-vnni";
#elif defined(__AVX2__)
  return "avx2";
#elif defined(__ARM_FEATURE_DOTPROD)
  return "neon";
#else
  return "portable";
#endif
}
}
