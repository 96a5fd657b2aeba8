#include "sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "simd.h"

namespace pentad {

namespace {

typedef double f64x8 __attribute__((vector_size(64)));
typedef double f64x8u __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t i64x8 __attribute__((vector_size(64)));
typedef float f32x8u __attribute__((vector_size(32), aligned(4), may_alias));

constexpr int kPeakSpan = 64;            // scores that share one peak, weights that share one sum
constexpr int kNucleusGuess = 256;   // most probable tokens looked at first for top-p
constexpr float kNone = -std::numeric_limits<float>::infinity();

enum Status : int32_t { kDrawn = 0, kNoneAllowed = 1, kNotANumber = 2, kOverflow = 3, kNoMemory = 4 };
constexpr double kGreedyBelow = 1e-6;  // temperatures

PENTAD_INLINE f64x8 all(double x) { return f64x8{x, x, x, x, x, x, x, x}; }

// e^x for x <= 0, relative error about 1e-16; 0 below the smallest normal number.
PENTAD_INLINE f64x8 exp_wide(f64x8 x) {
  const f64x8 magic = all(6755399441055744.0);  // 1.5 * 2^52
  const i64x8 live = x > all(-708.0);
  x = (f64x8)((i64x8)x & live);
  const f64x8 shifted = x * 1.4426950408889634 + magic;
  const f64x8 n = shifted - magic;
  f64x8 r = x - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  f64x8 p = all(1.0 / 6227020800.0);
  constexpr double kFactorials[] = {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0,
                                    120.0,       24.0,       6.0,       2.0,      1.0,     1.0};
  for (double f : kFactorials) p = p * r + 1.0 / f;
  const i64x8 power = (((i64x8)shifted - (i64x8)magic) + 1023) << 52;
  return (f64x8)((i64x8)(p * (f64x8)power) & live);
}

double exp_one(double x) { return exp_wide(all(x))[0]; }

PENTAD_INLINE f64x8 widened(const float* p) {
  return __builtin_convertvector(*reinterpret_cast<const f32x8u*>(p), f64x8);
}
PENTAD_INLINE double sum_of(f64x8 v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }

}  // namespace

double uniform(uint64_t seed, uint64_t choice, uint64_t position) {
  uint64_t key[2] = {seed, choice};
  const uint64_t first = position + 1;  // numpy counts before it computes
  uint64_t counter[4] = {first, first == 0, 0, 0};
  for (int round = 0; round < 10; round++) {
    if (round) key[0] += 0x9E3779B97F4A7C15ull, key[1] += 0xBB67AE8584CAA73Bull;
    const unsigned __int128 a = static_cast<unsigned __int128>(0xD2E7470EE14C6C93ull) * counter[0];
    const unsigned __int128 b = static_cast<unsigned __int128>(0xCA5A826395121157ull) * counter[2];
    const uint64_t next[4] = {static_cast<uint64_t>(b >> 64) ^ counter[1] ^ key[0], static_cast<uint64_t>(b),
                              static_cast<uint64_t>(a >> 64) ^ counter[3] ^ key[1], static_cast<uint64_t>(a)};
    std::copy(next, next + 4, counter);
  }
  return static_cast<double>(counter[0] >> 11) * 0x1p-53;
}

pentad_drawn Sampler::draw(const float* logits, int vocab, const pentad_draw_row& row,
                           const pentad_draws& shared) noexcept {
  try {
    return drawn(logits, vocab, row, shared);
  } catch (...) {
    return {-1, kNoMemory, 0, 0, 0.0};
  }
}

pentad_drawn Sampler::drawn(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared) {
  pentad_drawn drawn{-1, kDrawn, 0, 0, 0.0};
  if (row.raw) {
    std::memcpy(row.raw, logits, sizeof(float) * static_cast<size_t>(vocab));
    return drawn;
  }
  const float* scores = adjusted(logits, vocab, row, shared);
  float top;
  if (!find_peaks(scores, vocab, top)) {
    drawn.status = scores != logits && find_peaks(logits, vocab, top) ? kOverflow : kNotANumber;
    return drawn;
  }
  if (top == kNone) {
    drawn.status = kNoneAllowed;
    return drawn;
  }
  drawn.token = row.temperature < kGreedyBelow ? first_at(scores, vocab, top) : sample(scores, vocab, top, row);
  if (row.alternatives >= 0) log_probabilities(logits, vocab, row, shared, drawn);
  return drawn;
}

// The logits after penalties, bias, bans and mask; the same row when none applies.
const float* Sampler::adjusted(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared) {
  if (!row.seen_count && !row.counted_count && !row.biased_count && !row.banned_count && !row.mask) return logits;
  scores_.assign(logits, logits + vocab);
  float* s = scores_.data();
  const int32_t* seen = shared.ids + row.seen;
  const float penalty = static_cast<float>(row.repetition_penalty);
  for (int i = 0; i < row.seen_count; i++)
    if (seen[i] >= 0 && seen[i] < vocab) s[seen[i]] = s[seen[i]] > 0 ? s[seen[i]] / penalty : s[seen[i]] * penalty;
  const int32_t *counted = shared.ids + row.counted, *counts = counted + row.counted_count;
  for (int i = 0; i < row.counted_count; i++)
    if (counted[i] >= 0 && counted[i] < vocab)
      s[counted[i]] -= static_cast<float>(row.frequency_penalty * counts[i] + row.presence_penalty);
  const int32_t* biased = shared.ids + row.biased;
  for (int i = 0; i < row.biased_count; i++)
    if (biased[i] >= 0 && biased[i] < vocab) s[biased[i]] += static_cast<float>(shared.biases[row.biases + i]);
  const int32_t* banned = shared.ids + row.banned;
  for (int i = 0; i < row.banned_count; i++)
    if (banned[i] >= 0 && banned[i] < vocab) s[banned[i]] = kNone;
  if (row.mask) {
    for (int word = 0; word * 32 < vocab; word++) {
      uint32_t hidden = word < row.mask_words ? ~row.mask[word] : ~0u;
      if (vocab - word * 32 < 32) hidden &= (1u << (vocab - word * 32)) - 1;
      for (; hidden; hidden &= hidden - 1) s[word * 32 + std::countr_zero(hidden)] = kNone;
    }
  }
  return s;
}

// The largest score of each span and of all; false where the scores hold NaN or infinity.
bool Sampler::find_peaks(const float* scores, int vocab, float& top) {
  const int spans = (vocab + kPeakSpan - 1) / kPeakSpan;
  peaks_.resize(static_cast<size_t>(spans));
  i32x16 broken = splat_i(0);
  bool odd = false;
  top = kNone;
  for (int span = 0; span < spans; span++) {
    const float* s = scores + span * kPeakSpan;
    const int count = std::min(kPeakSpan, vocab - span * kPeakSpan);
    f32x16 peak = splat(kNone);
    int i = 0;
    for (; i + 16 <= count; i += 16) {
      const f32x16 x = load(s + i);
      broken |= x != x;
      peak = vmax(peak, x);
    }
    float most = hmax(peak);
    for (; i < count; i++) {
      odd |= s[i] != s[i];
      most = std::max(most, s[i]);
    }
    peaks_[static_cast<size_t>(span)] = most;
    top = std::max(top, most);
  }
  for (int i = 0; i < 16; i++) odd |= broken[i] != 0;
  return !odd && top < std::numeric_limits<float>::infinity();
}

int Sampler::first_at(const float* scores, int vocab, float value) const {
  int span = 0;
  while (peaks_[static_cast<size_t>(span)] != value) span++;
  const float* from = scores + span * kPeakSpan;
  return static_cast<int>(std::find(from, scores + vocab, value) - scores);
}

// Puts the `count` largest scores into found_, largest first, ties to the lowest token.
void Sampler::take_top(const float* scores, int vocab, int count) {
  count = std::min(count, vocab);
  // As many spans as tokens are wanted peak at or above the threshold, so as many tokens lie there.
  float threshold = kNone;
  if (count < static_cast<int>(peaks_.size())) {
    order_ = peaks_;
    std::nth_element(order_.begin(), order_.begin() + (count - 1), order_.end(), std::greater<>());
    threshold = order_[static_cast<size_t>(count - 1)];
  }
  found_.clear();
  for (int span = 0; span * kPeakSpan < vocab; span++) {
    if (peaks_[static_cast<size_t>(span)] < threshold) continue;
    for (int i = span * kPeakSpan; i < std::min(vocab, (span + 1) * kPeakSpan); i++)
      if (scores[i] >= threshold) found_.push_back({scores[i], i, 0.0});
  }
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.token < b.token);
  };
  if (static_cast<int>(found_.size()) > count) {
    std::nth_element(found_.begin(), found_.begin() + (count - 1), found_.end(), before);
    found_.resize(static_cast<size_t>(count));
  }
  std::sort(found_.begin(), found_.end(), before);
}

// weights_ = e^((score - top) / temperature), 0 below min-p; sums_ per span. Returns the sum.
double Sampler::weigh_all(const float* scores, int vocab, float top, const pentad_draw_row& row) {
  const int spans = (vocab + kPeakSpan - 1) / kPeakSpan;
  weights_.resize(static_cast<size_t>(spans) * kPeakSpan);
  sums_.resize(static_cast<size_t>(spans));
  const double wide_top = top, inverse = 1.0 / row.temperature;
  const f64x8 least = all(row.min_p);
  double total = 0;
  for (int span = 0; span < spans; span++) {
    const int at = span * kPeakSpan, count = std::min(kPeakSpan, vocab - at);
    float padded[kPeakSpan];
    const float* s = scores + at;
    if (count < kPeakSpan) {
      std::fill(padded, padded + kPeakSpan, kNone);
      std::copy(s, s + count, padded);
      s = padded;
    }
    f64x8 sum = all(0.0);
    for (int i = 0; i < kPeakSpan; i += 8) {
      f64x8 w = exp_wide((widened(s + i) - wide_top) * inverse);
      if (row.min_p > 0) w = (f64x8)((i64x8)w & (w >= least));
      *reinterpret_cast<f64x8u*>(weights_.data() + at + i) = w;
      sum += w;
    }
    sums_[static_cast<size_t>(span)] = sum_of(sum);
    total += sums_[static_cast<size_t>(span)];
  }
  return total;
}

void Sampler::weigh_found(float top, const pentad_draw_row& row) {
  for (Candidate& c : found_) {
    c.weight = exp_one((static_cast<double>(c.score) - static_cast<double>(top)) * (1.0 / row.temperature));
    if (c.weight < row.min_p) c.weight = 0;
  }
}

// Cuts found_ (largest first) to the fewest tokens whose mass reaches the goal; at least one.
void Sampler::keep_nucleus(double goal) {
  double mass = 0;
  for (size_t i = 0; i < found_.size(); i++) {
    mass += found_[i].weight;
    if (mass >= goal) {
      found_.resize(i + 1);
      return;
    }
  }
}

// The same out of all tokens, whose weights are known; a larger part is sorted where a small one lacks mass.
void Sampler::nucleus_of_all(const float* scores, int vocab, double goal) {
  for (int count = std::min(kNucleusGuess, vocab);; count = std::min(count * 16, vocab)) {
    take_top(scores, vocab, count);
    double mass = 0;
    for (Candidate& c : found_) {
      c.weight = weights_[static_cast<size_t>(c.token)];
      mass += c.weight;
    }
    if (mass >= goal || count == vocab) break;
  }
  keep_nucleus(goal);
}

int Sampler::draw_all(int vocab, double chance) {
  double total = 0;
  for (double sum : sums_) total += sum;
  const double goal = chance * total;
  double mass = 0;
  int last = 0;
  for (size_t span = 0; span < sums_.size(); span++) {
    if (mass + sums_[span] <= goal && span + 1 < sums_.size()) {
      mass += sums_[span];
      continue;
    }
    const int end = std::min(vocab, static_cast<int>(span + 1) * kPeakSpan);
    for (int i = static_cast<int>(span) * kPeakSpan; i < end; i++) {
      mass += weights_[static_cast<size_t>(i)];
      if (mass > goal) return i;
    }
  }
  for (int i = 0; i < vocab; i++)  // the product rounded up to the whole mass
    if (weights_[static_cast<size_t>(i)] > 0) last = i;
  return last;
}

int Sampler::draw_found(double chance) {
  std::sort(found_.begin(), found_.end(), [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  double total = 0;
  for (const Candidate& c : found_) total += c.weight;
  const double goal = chance * total;
  double mass = 0;
  int last = found_.front().token;
  for (const Candidate& c : found_) {
    mass += c.weight;
    if (mass > goal) return c.token;
    if (c.weight > 0) last = c.token;
  }
  return last;
}

int Sampler::sample(const float* scores, int vocab, float top, const pentad_draw_row& row) {
  const double chance = uniform(row.seed, row.choice, row.position);
  if (row.top_k > 0 && row.top_k < vocab) {
    take_top(scores, vocab, row.top_k);
    weigh_found(top, row);
    if (row.top_p < 1) {
      double total = 0;
      for (const Candidate& c : found_) total += c.weight;
      keep_nucleus(row.top_p * total);
    }
    return draw_found(chance);
  }
  const double total = weigh_all(scores, vocab, top, row);
  if (row.top_p >= 1) return draw_all(vocab, chance);
  nucleus_of_all(scores, vocab, row.top_p * total);
  return draw_found(chance);
}

// Of the raw model: without temperature, penalties or mask.
void Sampler::log_probabilities(const float* logits, int vocab, const pentad_draw_row& row, const pentad_draws& shared,
                                pentad_drawn& drawn) {
  float top;
  if (!find_peaks(logits, vocab, top) || top == kNone) {
    drawn.status = kNotANumber;
    return;
  }
  const double wide_top = top;
  f64x8 sum = all(0.0);
  int i = 0;
  for (; i + 8 <= vocab; i += 8) sum += exp_wide(widened(logits + i) - wide_top);
  double total = sum_of(sum);
  for (; i < vocab; i++) total += exp_one(static_cast<double>(logits[i]) - wide_top);
  const double norm = wide_top + std::log(total);
  drawn.logprob = static_cast<double>(logits[drawn.token]) - norm;
  if (row.alternatives == 0) return;
  take_top(logits, vocab, row.alternatives);
  drawn.alternatives = static_cast<int32_t>(found_.size());
  for (size_t k = 0; k < found_.size(); k++) {
    shared.alternative_tokens[static_cast<size_t>(row.alternatives_at) + k] = found_[k].token;
    shared.alternative_logprobs[static_cast<size_t>(row.alternatives_at) + k] =
        static_cast<double>(found_[k].score) - norm;
  }
}

}  // namespace pentad
