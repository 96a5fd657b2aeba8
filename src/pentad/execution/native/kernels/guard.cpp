#include "guard.h"

#include <atomic>
#include <mutex>

#include "native.h"

#if defined(__linux__)
#include <csignal>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace pentad {

#if defined(__linux__)

namespace {

struct Watched {
  std::atomic<uintptr_t> begin{0}, end{0};  // end 0: this place is free
  std::atomic<uint32_t> lost{0};
};
constexpr int kMostWatched = 256;
Watched watched[kMostWatched];
std::mutex changing;
struct sigaction before;
bool installed = false;
uintptr_t page_bytes = 4096;

// Puts a page of zeros where the file ends early. Calls only what a signal handler may: the system itself.
bool replace_page(uintptr_t at) {
  for (Watched& w : watched) {
    const uintptr_t end = w.end.load(std::memory_order_acquire);
    if (at < w.begin.load(std::memory_order_relaxed) || at >= end) continue;
    void* page = reinterpret_cast<void*>(at & ~(page_bytes - 1));
    if (mmap(page, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
      return false;
    w.lost.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  if (replace_page(reinterpret_cast<uintptr_t>(info->si_addr))) return;
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
  std::signal(signal, SIG_DFL);  // the access is made again, and ends the process as it would have without us
}

}  // namespace

FileWatch::FileWatch(const void* begin, size_t bytes) : place_(-1) {
  const std::lock_guard lock(changing);
  if (!installed) {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &before)) return;
    installed = true;
  }
  for (int i = 0; i < kMostWatched; i++) {
    Watched& w = watched[i];
    if (w.end.load(std::memory_order_relaxed)) continue;
    w.lost.store(0, std::memory_order_relaxed);
    w.begin.store(reinterpret_cast<uintptr_t>(begin), std::memory_order_relaxed);
    w.end.store(reinterpret_cast<uintptr_t>(begin) + bytes, std::memory_order_release);
    place_ = i;
    return;
  }
}

FileWatch::~FileWatch() {
  if (place_ >= 0) watched[place_].end.store(0, std::memory_order_release);
}

uint32_t FileWatch::lost() const { return place_ < 0 ? 0 : watched[place_].lost.load(std::memory_order_relaxed); }

#else

FileWatch::FileWatch(const void*, size_t) : place_(-1) {}
FileWatch::~FileWatch() = default;
uint32_t FileWatch::lost() const { return 0; }

#endif

}  // namespace pentad

struct pentad_watch {
  pentad::FileWatch watch;
};

extern "C" {

pentad_watch* pentad_watch_file(const void* begin, size_t bytes) {
  return pentad::guarded<pentad_watch*>(nullptr, [&] { return new pentad_watch{{begin, bytes}}; });
}
uint32_t pentad_watch_lost(const pentad_watch* w) { return w ? w->watch.lost() : 0; }
void pentad_watch_end(pentad_watch* w) { delete w; }
}
