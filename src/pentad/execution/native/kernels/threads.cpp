#include "threads.h"

#include <algorithm>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pentad {

namespace {
inline void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}
constexpr int kSpins = 4000;   // about 50 microseconds: longer than any phase imbalance
constexpr int kYields = 50;
constexpr uint32_t kRun = 4096;  // a generation counts runs above, and has the number of members below
static_assert(kMostThreads < static_cast<int>(kRun));

thread_local int own_rank = 0;  // the caller of run() is 0

int core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}
}  // namespace

Team::Team(int size) : size_(std::clamp(size, 1, kMostThreads)), cores_(static_cast<size_t>(size_)) {
  for (auto& place : cores_) place = -1;
  members_.reserve(static_cast<size_t>(size_));
  try {
    for (int rank = 1; rank < size_; rank++) members_.emplace_back([this, rank] { member(rank); });
  } catch (const std::system_error&) {  // a limit on threads, or no memory for a stack
  }
  size_ = active_ = static_cast<int>(members_.size()) + 1;
}

Team::~Team() {
  stop_ = true;
  generation_.fetch_add(kRun, std::memory_order_release);
  generation_.notify_all();
  for (auto& m : members_) m.join();
}

// Moves the calling member to a core of its own if another member was seen on its core.
void Team::part() {
#if defined(__linux__)
  const int mine = core();
  cores_[static_cast<size_t>(own_rank)] = mine;
  cpu_set_t taken, allowed, open;
  CPU_ZERO(&taken);
  for (int rank = 0; rank < active_; rank++) {
    const int other = cores_[static_cast<size_t>(rank)];
    if (rank != own_rank && other >= 0 && other < CPU_SETSIZE) CPU_SET(other, &taken);
  }
  if (mine < 0 || mine >= CPU_SETSIZE || !CPU_ISSET(mine, &taken)) return;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  CPU_AND(&taken, &taken, &allowed);
  CPU_XOR(&open, &allowed, &taken);
  if (!CPU_COUNT(&open) || sched_setaffinity(0, sizeof open, &open)) return;
  sched_setaffinity(0, sizeof allowed, &allowed);
  cores_[static_cast<size_t>(own_rank)] = core();
#endif
}

void Team::wait_change(std::atomic<uint32_t>& word, uint32_t old) {
  for (int i = 0; i < kSpins; i++) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause_cpu();
  }
  stalls_.fetch_add(1, std::memory_order_relaxed);
  if (&word == &phase_) part();
  for (int i = 0; i < kYields; i++) {
    if (word.load(std::memory_order_acquire) != old) return;
    std::this_thread::yield();
  }
  word.wait(old, std::memory_order_acquire);
}

void Team::member(int rank) {
  own_rank = rank;
  uint32_t seen = 0;
  for (;;) {
    wait_change(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stop_) return;
    if (rank < static_cast<int>(seen & (kRun - 1))) {
      cores_[static_cast<size_t>(rank)] = core();
      call_(work_, rank);
      barrier();
    }
  }
}

void Team::run_erased(Call call, void* work) {
  if (active_ == 1) return call(work, 0);
  call_ = call;
  work_ = work;
  own_rank = 0;
  cores_[0] = core();
  // The generation carries the number of members: a late, idle member cannot mistake the run.
  uint32_t next = (generation_.load(std::memory_order_relaxed) & ~(kRun - 1)) + kRun;
  generation_.store(next | static_cast<uint32_t>(active_), std::memory_order_release);
  generation_.notify_all();
  call(work, 0);
  barrier();
}

void Team::barrier() {
  // Read before arriving: once all have arrived, the caller may change the number for its next run.
  const uint32_t active = static_cast<uint32_t>(active_);
  if (active == 1) return;
  uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == active) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_change(phase_, phase);
  }
}

}  // namespace pentad
