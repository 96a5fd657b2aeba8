// The matrices of states: each head's S [key, value] decays, takes what a token writes, and is read by it,
//
//     S <- d S + k u^T     o = S^T q     mamba2: u = step * v     gated delta rule: u = rate * (v - d S^T k)
//
// 16 columns of S by themselves, token by token, so that they stay in the first cache however long the text is, and no
// cut of it changes a bit.
#include "step.h"

namespace pentad {

namespace {

#if defined(__AVX512F__)
constexpr int kColumnSlices = 2;  // of 16 columns that are computed together: as many as registers hold
#else
constexpr int kColumnSlices = 1;
#endif

// Tokens of a sequence and one head, ready to be written.
struct Prepared {
  const float *queries, *keys;  // [count][key_dim]
  float decays[kStateTokens], rates[kStateTokens], products[kStateTokens];  // products: of a token's query and key
  int count, key_dim;
};

// Slices of a state, and of what is written to them and read; each stands so many numbers behind the last.
struct Slices {
  float* state;
  const float* values;
  float* given;
  size_t state_stride, value_stride;
};

template <int kWide>
PENTAD_INLINE void read_state(const Slices& at, const Prepared& p, int t, f32x16* known, f32x16* read) {
  const float *key = p.keys + static_cast<size_t>(t) * p.key_dim, *query = p.queries + static_cast<size_t>(t) * p.key_dim;
  for (int w = 0; w < kWide; w++) known[w] = read[w] = splat(0.0f);
  for (int i = 0; i < p.key_dim; i++)
    for (int w = 0; w < kWide; w++) {
      const f32x16 x = load(at.state + w * at.state_stride + i * 16);
      known[w] = muladd(splat(key[i]), x, known[w]);
      read[w] = muladd(splat(query[i]), x, read[w]);
    }
}

// While a token is written, the next one reads.
template <int kWide, bool kNext>
PENTAD_INLINE void write_state(const Slices& at, const Prepared& p, int t, const f32x16* written, f32x16* known, f32x16* read) {
  const size_t dim = static_cast<size_t>(p.key_dim);
  const float *key = p.keys + t * dim, *next_key = key + dim, *next_query = p.queries + (t + 1) * dim;
  const f32x16 decay = splat(p.decays[t]);
  for (int w = 0; w < kWide && kNext; w++) known[w] = read[w] = splat(0.0f);
  for (int i = 0; i < p.key_dim; i++)
    for (int w = 0; w < kWide; w++) {
      float* place = at.state + w * at.state_stride + i * 16;
      const f32x16 x = muladd(splat(key[i]), written[w], load(place) * decay);
      store(place, x);
      if constexpr (kNext) {
        known[w] = muladd(splat(next_key[i]), x, known[w]);
        read[w] = muladd(splat(next_query[i]), x, read[w]);
      }
    }
}

template <int kWide>
void delta_rule(const Slices& at, const Prepared& p) {
  f32x16 known[kWide], read[kWide], written[kWide];
  read_state<kWide>(at, p, 0, known, read);
  for (int t = 0; t < p.count; t++) {
    for (int w = 0; w < kWide; w++) {
      const size_t place = w * at.value_stride + static_cast<size_t>(t) * 16;
      written[w] = (load(at.values + place) - known[w] * p.decays[t]) * p.rates[t];
      store(at.given + place, muladd(written[w], splat(p.products[t]), read[w] * p.decays[t]));
    }
    if (t + 1 < p.count) write_state<kWide, true>(at, p, t, written, known, read);
    else write_state<kWide, false>(at, p, t, written, known, read);
  }
}

// kTokens from token `t` on: what they write does not depend on the state, so that it is passed once for all.
template <int kWide, int kTokens>
PENTAD_INLINE void mamba_tokens(const Slices& at, const Prepared& p, int t) {
  f32x16 written[kTokens][kWide], read[kTokens][kWide];
  const size_t dim = static_cast<size_t>(p.key_dim);
  for (int n = 0; n < kTokens; n++)
    for (int w = 0; w < kWide; w++) {
      written[n][w] = load(at.values + w * at.value_stride + static_cast<size_t>(t + n) * 16) * p.rates[t + n];
      read[n][w] = splat(0.0f);
    }
  const float *keys = p.keys + static_cast<size_t>(t) * dim, *queries = p.queries + static_cast<size_t>(t) * dim;
  for (size_t i = 0; i < dim; i++)
    for (int w = 0; w < kWide; w++) {
      float* place = at.state + w * at.state_stride + i * 16;
      f32x16 x = load(place);
      for (int n = 0; n < kTokens; n++) {
        x = muladd(splat(keys[n * dim + i]), written[n][w], x * splat(p.decays[t + n]));
        read[n][w] = muladd(splat(queries[n * dim + i]), x, read[n][w]);
      }
      store(place, x);
    }
  for (int n = 0; n < kTokens; n++)
    for (int w = 0; w < kWide; w++)
      store(at.given + w * at.value_stride + static_cast<size_t>(t + n) * 16, read[n][w]);
}

template <int kWide>
void mamba2(const Slices& at, const Prepared& p) {
  constexpr int kTokens = kColumnSlices == 2 ? 4 : 2;
  int t = 0;
  for (; t + kTokens <= p.count; t += kTokens) mamba_tokens<kWide, kTokens>(at, p, t);
  for (; t < p.count; t++) mamba_tokens<kWide, 1>(at, p, t);
}

// A row of a group's queries or keys; of the delta rule at length 1, times `scale`.
void take_row(Step& s, bool unit, int group, int token, int dim, float scale, float* out) {
  for (int d = 0; d < dim; d += 16) store(out + d, load(line(s.recurrence.mixed, s.batch->tokens, group + d / 16, token)));
  if (!unit) return;
  constexpr float kEps = 1e-6f;
  const float factor = scale / std::sqrt(sum_of_squares(dim, out) + kEps);
  for (int d = 0; d < dim; d += 16) store(out + d, load(out + d) * factor);
}

void prepare(Step& s, const pentad_mixer& m, int head, int begin, int count, RecurrenceScratch& own, Prepared& p) {
  Recurrence& r = s.recurrence;
  const bool delta = m.kind == PENTAD_GATED_DELTA;
  const int tokens = s.batch->tokens, dim = m.key_dim, keys = m.groups * dim / 16, inner = m.heads * m.value_dim / 16;
  const int group = head / (m.heads / m.groups) * dim / 16;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  p.queries = own.queries.data(), p.keys = own.keys.data(), p.count = count, p.key_dim = dim;
  for (int i = 0; i < count; i++) {
    float *query = own.queries.data() + static_cast<size_t>(i) * dim, *key = own.keys.data() + static_cast<size_t>(i) * dim;
    take_row(s, delta, group + (delta ? 0 : inner + keys), begin + i, dim, scale, query);
    take_row(s, delta, group + (delta ? keys : inner), begin + i, dim, 1.0f, key);
    p.decays[i] = column(r.decays, tokens, head, begin + i);
    p.rates[i] = column(delta ? r.rates : r.steps, tokens, head, begin + i);
    f32x16 sum = splat(0.0f);
    for (int d = 0; d < dim && delta; d += 16) sum = muladd(load(query + d), load(key + d), sum);
    p.products[i] = hsum(sum);
  }
}

// Tokens [begin, end) of a sequence through slices [from, to) of a head.
void advance(Step& s, const Op& op, int head, int from, int to, int begin, int end, float* state, int rank) {
  const pentad_mixer& m = op.weights->mixer;
  const bool delta = m.kind == PENTAD_GATED_DELTA;
  const int tokens = s.batch->tokens, slices = m.value_dim / 16, values = delta ? 2 * m.groups * m.key_dim / 16 : 0;
  const size_t size = static_cast<size_t>(m.key_dim) * 16;
  Prepared p;
  for (int t = begin; t < end; t += kStateTokens) {
    prepare(s, m, head, t, std::min(kStateTokens, end - t), s.recurrence.scratch[static_cast<size_t>(rank)], p);
    for (int slice = from; slice < to;) {
      const int place = head * slices + slice;
      const Slices at{state + static_cast<size_t>(place) * size, line(s.recurrence.mixed, tokens, values + place, t),
                      line(s.recurrence.given, tokens, place, t), size, static_cast<size_t>(tokens) * 16};
      const bool whole = slice + kColumnSlices <= to;
      if (delta) whole ? delta_rule<kColumnSlices>(at, p) : delta_rule<1>(at, p);
      else whole ? mamba2<kColumnSlices>(at, p) : mamba2<1>(at, p);
      slice += whole ? kColumnSlices : 1;
    }
  }
}

}  // namespace

void recur(Step& s, const Op& op, int rank) {
  const pentad_batch& b = *s.batch;
  const pentad_mixer& m = op.weights->mixer;
  const int slices = m.value_dim / 16;
  const size_t size = static_cast<size_t>(m.key_dim) * 16;
  auto [begin, end] = s.share(m.heads * slices, rank);
  int save = 0;
  for (int q = 0; q < b.sequences; q++) {
    float* state = s.states.matrix(op.layer, b.state_rows[q]);
    const auto part_of = [&](float* of) { return of + static_cast<size_t>(begin) * size; };
    const size_t part = static_cast<size_t>(end - begin) * size;
    if (b.starts[q] < b.starts[q + 1] && b.positions[b.starts[q]] == 0) std::fill_n(part_of(state), part, 0.0f);
    each_part(b, q, save, [&](int first, int last, int saved) {
      for (int unit = begin; unit < end;) {
        const int head = unit / slices, from = unit % slices, to = std::min(slices, from + end - unit);
        advance(s, op, head, from, to, first, last, state, rank);
        unit += to - from;
      }
      if (saved >= 0) std::copy_n(part_of(state), part, part_of(s.states.matrix(op.layer, saved)));
    });
  }
  s.team.barrier();
}

}  // namespace pentad
