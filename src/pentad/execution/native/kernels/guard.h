// What may not happen behind a C interface: an exception that leaves it, and a signal for memory that was taken away.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pentad {

// What `work` returns, or `failed` where it throws: memory ran out, or a number is out of range.
template <typename Result, typename Work>
Result guarded(Result failed, Work&& work) noexcept {
  try {
    return work();
  } catch (...) {
    return failed;
  }
}

// Watches memory that is a mapped file. A file that is cut short while mapped makes the system send SIGBUS to
// whoever reads behind its end; with a watch the missing page becomes one of zeros, and is counted. Where the
// system has no such signal, or too many are watched, nothing is.
class FileWatch {
 public:
  FileWatch(const void* begin, size_t bytes);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;
  // Pages that were found missing so far.
  uint32_t lost() const;

 private:
  int place_;
};

}  // namespace pentad
