// What this machine can do at most: bytes read per second, and products per second of the
// instructions that the kernels multiply with. `pentad bench` holds steps against these limits.
#include <chrono>
#include <functional>

#include "guard.h"
#include "native.h"
#include "simd.h"
#include "threads.h"

namespace pentad {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Reads all of it, eight lines at a time; the result depends on every byte.
uint64_t read_all(const uint8_t* p, size_t bytes) {
  typedef uint64_t u64x8 __attribute__((vector_size(64)));
  typedef uint64_t u64x8u __attribute__((vector_size(64), aligned(1), may_alias));
  u64x8 seen[8] = {};
  const uint8_t* end = p + bytes / 512 * 512;
  for (; p < end; p += 512)
    for (int i = 0; i < 8; i++) {
      __builtin_prefetch(p + 4096 + i * 64);
      seen[i] ^= *reinterpret_cast<const u64x8u*>(p + i * 64);
    }
  for (int i = 1; i < 8; i++) seen[0] ^= seen[i];
  uint64_t all = 0;
  for (int i = 0; i < 8; i++) all ^= seen[0][i];
  return all;
}

constexpr int kProducts = 1 << 18;  // instructions of one chain
constexpr int kChains = 12;         // more than the latency of any of them

// Multiplies and additions of int8 that one call does; 0 where no instruction does them.
#if defined(__AVX512VNNI__)
constexpr double kInt8Operations = 128.0 * kProducts * kChains;
void int8_products() {
  __m512i sums[kChains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int i = 0; i < kProducts; i++) {
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (auto& sum : sums) asm volatile("" : : "v"(sum));
}
#elif defined(__AVX2__)
constexpr double kInt8Operations = 64.0 * kProducts * kChains;
void int8_products() {
  __m256i sums[kChains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
  for (auto& sum : sums) sum = _mm256_setzero_si256();
#if !defined(__AVXVNNI__)
  const __m256i ones = _mm256_set1_epi16(1);
#endif
  for (int i = 0; i < kProducts; i++) {
    for (auto& sum : sums) {
#if defined(__AVXVNNI__)
      sum = _mm256_dpbusd_avx_epi32(sum, a, b);
#else
      __m256i narrow = _mm256_maddubs_epi16(a, b);
      asm volatile("" : "+x"(narrow));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, ones));
#endif
    }
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (auto& sum : sums) asm volatile("" : : "x"(sum));
}
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr double kInt8Operations = 32.0 * kProducts * kChains;
void int8_products() {
  int32x4_t sums[kChains];
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
  for (auto& sum : sums) sum = vdupq_n_s32(0);
  for (int i = 0; i < kProducts; i++) {
    for (auto& sum : sums) sum = vdotq_s32(sum, a, b);
    asm volatile("" : "+w"(a), "+w"(b));
  }
  for (auto& sum : sums) asm volatile("" : : "w"(sum));
}
#else
constexpr double kInt8Operations = 0;
void int8_products() {}
#endif

// The same of bf16 on tiles.
#if defined(__AMX_BF16__)
constexpr double kTileOperations = 4.0 * 16 * 16 * 32 * 2 * (kProducts / 16);
void tile_products() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
  asm volatile("" : : "r"(&config) : "memory");  // the intrinsic names only its first bytes
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int i = 0; i < kProducts / 16; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}
#else
constexpr double kTileOperations = 0;
void tile_products() {}
#endif

}  // namespace
}  // namespace pentad

extern "C" {

int32_t pentad_probe_read(const void* data, size_t bytes, int32_t threads, int32_t passes, double* bytes_per_s) {
  return pentad::guarded(-1, [&] {
    pentad::Team team(threads);
    std::vector<uint64_t> seen(static_cast<size_t>(team.size()) * 8);
    const size_t share = bytes / static_cast<size_t>(team.size());
    for (int i = 0; i < passes; i++)
      bytes_per_s[i] = static_cast<double>(share * static_cast<size_t>(team.size())) / pentad::seconds_of([&] {
        team.run([&](int rank) {
          seen[static_cast<size_t>(rank) * 8] ^=
              pentad::read_all(static_cast<const uint8_t*>(data) + share * static_cast<size_t>(rank), share);
        });
      });
    volatile uint64_t sink = 0;
    for (uint64_t word : seen) sink = sink ^ word;
    return 0;
  });
}

int32_t pentad_probe_products(int32_t threads, int32_t tiles, int32_t passes, double* operations_per_s) {
  return pentad::guarded(-1, [&] {
    pentad::Team team(threads);
    const double each = tiles ? pentad::kTileOperations : pentad::kInt8Operations;
    for (int i = 0; i < passes; i++)
      operations_per_s[i] = each == 0 ? 0 : each * team.size() / pentad::seconds_of([&] {
        team.run([&](int) { tiles ? pentad::tile_products() : pentad::int8_products(); });
      });
    return 0;
  });
}
}
