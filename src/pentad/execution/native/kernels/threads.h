// A team of threads that runs one function on every member, with barriers that spin briefly,
// then yield, then sleep, so that a busy machine is not made busier. Members that the system has put
// on one core part: it would leave them there for many steps, since each has just run.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace pentad {

constexpr int kMostThreads = 1024;

// Part `rank` of n things among `parts` members.
inline std::pair<int, int> share_of(int n, int rank, int parts) {
  const int64_t all = n;
  return {static_cast<int>(all * rank / parts), static_cast<int>(all * (rank + 1) / parts)};
}

class Team {
 public:
  // At most kMostThreads members; fewer than asked where the system starts no more.
  explicit Team(int size);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }
  // Members taking part from the next run on; at most size().
  void set_active(int n) { active_ = n < 1 ? 1 : n > size_ ? size_ : n; }
  int active() const { return active_; }

  // Calls work(rank) on members 0 .. active-1; the caller is rank 0. Returns when all are done. Allocates
  // nothing. The work must not throw: the others would wait for it.
  template <typename Work>
  void run(Work&& work) {
    using Kept = std::remove_reference_t<Work>;
    run_erased([](void* kept, int rank) noexcept { (*static_cast<Kept*>(kept))(rank); }, std::addressof(work));
  }
  // Waits for all active members; only inside run().
  void barrier();
  // Spins that gave up and yielded or slept since construction: a sign of a busy machine.
  uint64_t stalls() const { return stalls_.load(std::memory_order_relaxed); }

 private:
  using Call = void (*)(void*, int) noexcept;
  void run_erased(Call call, void* work);
  void member(int rank);
  void wait_change(std::atomic<uint32_t>& word, uint32_t old);
  void part();

  int size_;
  int active_;
  Call call_ = nullptr;
  void* work_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<uint64_t> stalls_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::atomic<int>> cores_;  // where each member was seen last
  std::vector<std::thread> members_;
};

}  // namespace pentad
