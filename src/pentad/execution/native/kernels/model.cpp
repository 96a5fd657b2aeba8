// A decoder behind the C interface: its weights, its cache, and the program of ops that a step runs.
#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>

#include "guard.h"
#include "step.h"

namespace pentad {

class Model {
 public:
  explicit Model(const pentad_config& c)
      : c_(c), team_(c.threads), products_(team_.size()), weights_(c_, team_), cache_(c_, team_),
        states_(c_), step_(c_, team_, products_, weights_, cache_, states_) {}
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  ModelWeights& weights() { return weights_; }
  const ModelWeights& weights() const { return weights_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }
  States& states() { return states_; }
  Team& team() { return team_; }
  const double* times() const { return times_; }
  void set_timed(bool timed) { timed_ = timed; }
  int set_experts(int layer, const pentad_experts& e) {
    if (layer < 0 || layer >= c_.layers || !possible(e)) return -1;
    weights_.layers[static_cast<size_t>(layer)].experts = e;
    return 0;
  }
  uint64_t expert_bytes() const { return step_.routing.bytes_read; }
  int adapt(const pentad_adapter* const* adapters, int count) {
    step_.adapting.give(adapters, count);
    return 0;
  }
  int set_pager(pentad_pager call, void* context) {
    int most = 0;
    for (const LayerWeights& l : weights_.layers) most = std::max(most, l.experts.count);
    step_.pager.experts.reserve(static_cast<size_t>(most));
    step_.pager.rows.reserve(static_cast<size_t>(most));
    step_.pager.call = call;
    step_.pager.context = context;
    return 0;
  }
  int guess_experts(int layer, int32_t* experts, int most) {
    for (const Op& op : program_)
      if (op.kind == PENTAD_OP_ROUTE && op.layer == layer) {
        const int count = step_.batch->tokens * op.weights->experts.per_token;
        if (count > most) return -1;
        guess(step_, op, experts);
        return count;
      }
    return -1;
  }
  int watch(const void* begin, size_t bytes) {
    watch_ = std::make_unique<FileWatch>(begin, bytes);
    return 0;
  }
  int set_program(const pentad_op* ops, int count) {
    std::vector<Op> program = bind_program(c_, weights_, ops, count);
    step_.take(program);
    program_ = std::move(program);
    return 0;
  }
  int ready() {
    if (program_.empty()) return -1;
    for (const Op& op : program_) {
      if (!complete(c_, weights_, op)) return -1;
      // Of what is kept, all behind the vector is turned.
      if (op.kind == PENTAD_OP_LATENT &&
          (op.rotation < 0 || cache_.rotation(op.rotation)->dim() != op.weights->mixer.key_dim - op.weights->mixer.value_dim))
        return -1;
      if (op.kind == PENTAD_OP_QKV) cache_.centre(op.layer, *op.weights, op.rotation);
    }
    return 0;
  }

  // `draws` names the rows whose logits are kept to draw from; without it `b.logits` takes all.
  int step(const pentad_batch& b, const pentad_draws* draws = nullptr) {
    if (b.by_head && (cache_.centred() || cache_.heads() != c_.layers * c_.kv_heads)) return 9;
    if (const int wrong = check_batch(c_, b)) return wrong;
    if (const int wrong = states_.check(b)) return wrong;
    try {
      states_.reserve(b);
      step_.prepare(b, draws);
    } catch (const std::exception&) {
      return 6;
    }
    team_.run([this](int rank) { work(rank); });
    if (b.argmax) {
      for (int r = 0; r < b.rows; r++) {
        Best top{-INFINITY, -1};
        for (int k = 0; k < team_.active(); k++) {
          const Best& one = step_.best[static_cast<size_t>(k) * b.rows + r];
          if (one.value > top.value || (one.value == top.value && one.token < top.token)) top = one;
        }
        b.argmax[r] = std::isfinite(top.value) ? top.token : -1;
      }
    }
    return watch_ && watch_->lost() ? 8 : 0;
  }

 private:
  // As pagers are told.
  int place_of(const Op& op) const { return op.kind == PENTAD_OP_HEAD ? c_.layers : op.layer; }

  void work(int rank) {
    const bool timed = timed_ && rank == 0;
    auto mark = timed ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point{};
    auto lap = [&](Phase phase) {
      if (!timed) return;
      auto now = std::chrono::steady_clock::now();
      times_[phase] += std::chrono::duration<double>(now - mark).count();
      mark = now;
    };
    int layer = -1;
    for (const Op& op : program_) {
      if (step_.pager.call && layer != place_of(op)) {
        layer = place_of(op);
        if (!rank) step_.pager.call(step_.pager.context, layer, nullptr, nullptr, 0);
        team_.barrier();
      }
      op.run(step_, op, rank);
      if (op.phase != kPhases) lap(op.phase);
    }
    products_.release(rank);
    if (float* out = step_.batch->hidden) {
      auto [begin, end] = step_.share(step_.batch->tokens, rank);
      if (begin < end) std::copy(step_.row(begin), step_.row(end), out + static_cast<size_t>(begin) * c_.width);
    }
  }

  const pentad_config c_;
  Team team_;
  Products products_;
  ModelWeights weights_;
  KvCache cache_;
  States states_;
  Step step_;
  std::vector<Op> program_;
  std::unique_ptr<FileWatch> watch_;
  double times_[8] = {};
  bool timed_ = false;
};

}  // namespace pentad

struct pentad_model {
  explicit pentad_model(const pentad_config& c) : model(c) {}
  pentad::Model model;
};

extern "C" {

pentad_model* pentad_create(const pentad_config* c) {
  return pentad::guarded<pentad_model*>(nullptr, [&] { return new pentad_model(*c); });
}
void pentad_destroy(pentad_model* m) { delete m; }
int pentad_set(pentad_model* m, int32_t tensor, int32_t layer, int32_t format, const void* data, int32_t rows,
               int32_t cols, int32_t paired) {
  return pentad::guarded(-1, [&] {
    return m->model.weights().set(tensor, layer, static_cast<pentad::Format>(format), static_cast<const uint8_t*>(data),
                                  rows, cols, paired);
  });
}
int pentad_pack(pentad_model* m, int32_t format, const void* data, int32_t rows, int32_t cols, int32_t paired,
                void* out) {
  return pentad::guarded(-1, [&] {
    return m->model.weights().pack(static_cast<pentad::Format>(format), static_cast<const uint8_t*>(data), rows, cols,
                                   paired, static_cast<uint8_t*>(out));
  });
}
int pentad_attach(pentad_model* m, int32_t tensor, int32_t layer, int32_t format, int32_t rows, int32_t cols,
                  const void* packed) {
  return pentad::guarded(-1, [&] {
    return m->model.weights().attach(tensor, layer, static_cast<pentad::Format>(format), rows, cols,
                                     static_cast<const uint8_t*>(packed));
  });
}
int pentad_set_experts(pentad_model* m, int32_t layer, const pentad_experts* e) {
  return pentad::guarded(-1, [&] { return m->model.set_experts(layer, *e); });
}
uint64_t pentad_expert_bytes(const pentad_model* m) { return m->model.expert_bytes(); }
int pentad_set_pager(pentad_model* m, pentad_pager call, void* context) {
  return pentad::guarded(-1, [&] { return m->model.set_pager(call, context); });
}
int32_t pentad_guess_experts(pentad_model* m, int32_t layer, int32_t* experts, int32_t most) {
  return pentad::guarded(-1, [&] { return m->model.guess_experts(layer, experts, most); });
}
int pentad_set_program(pentad_model* m, const pentad_op* ops, int32_t count) {
  return pentad::guarded(-1, [&] { return m->model.set_program(ops, count); });
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
pentad_adapter* pentad_adapter_create(const pentad_model* m) {
  return pentad::guarded<pentad_adapter*>(nullptr, [&] { return new pentad_adapter{pentad::Adapter(m->model.weights())}; });
}
int pentad_adapt(pentad_model* m, const pentad_adapter* const* adapters, int32_t count) {
  return pentad::guarded(-1, [&] { return m->model.adapt(adapters, count); });
}
int pentad_copy_block(pentad_model* m, int32_t s, int32_t t) { return m->model.cache().copy_block(s, t); }
void* pentad_block_data(pentad_model* m, int32_t block) { return m->model.cache().block_data(block); }
size_t pentad_kv_block_bytes(const pentad_model* m) { return m->model.cache().kv_block_bytes(); }
int pentad_copy_state(pentad_model* m, int32_t s, int32_t t) {
  return pentad::guarded(-2, [&] { return m->model.states().copy(s, t); });
}
int pentad_copy_slots(pentad_model* m, const int32_t* pairs, int32_t n) { return m->model.cache().copy_slots(pairs, n); }
size_t pentad_weight_bytes(const pentad_model* m) { return m->model.weights().bytes(); }
int pentad_read_block(pentad_model* m, int32_t layer, int32_t head, int32_t block, int32_t place, uint16_t* out) {
  return pentad::guarded(-1, [&] { return m->model.cache().read_block(layer, head, block, place, out); });
}
void pentad_code_row(const float* x, int32_t dim, int8_t* codes, uint16_t* step) {
  *step = pentad::code_row(x, dim, codes);
}
size_t pentad_block_bytes(const pentad_model* m) { return m->model.cache().block_bytes(); }
int pentad_move_entries(pentad_model* m, const int64_t* pairs, int32_t n) {
  return pentad::guarded(-2, [&] { return m->model.cache().move_entries(pairs, n); });
}
int pentad_page_scores(const pentad_model* m, const int32_t* pages, int32_t n, double* out) {
  return m->model.cache().page_scores(pages, n, out);
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
