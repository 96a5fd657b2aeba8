// Zeroed memory that is taken page by page as it is written.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pentad {

inline int pad(int n, int to) { return (n + to - 1) / to * to; }

// On 2 MB pages where the system has them.
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

}  // namespace pentad
