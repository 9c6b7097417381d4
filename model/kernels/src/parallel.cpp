#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "cpu.h"

namespace talipot {
namespace {

#if TALIPOT_X86
class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushToZero | kZeroDenormals); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned kFlushToZero = 0x8000;
  static constexpr unsigned kZeroDenormals = 0x0040;
  unsigned saved_;
};
inline void pause() { _mm_pause(); }
#else
// aarch64's pool threads all keep the default.
class FlushDenormals {
 public:
  FlushDenormals() {}
};
inline void pause() {}
#endif

// Kept alive by the helpers as well: one that starts late finds no task left, and touches no body.
struct Job {
  Job(int64_t tasks, const std::function<void(int64_t)>* body) : tasks(tasks), body(body) {}

  const int64_t tasks;
  const std::function<void(int64_t)>* const body;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;

  void work() {
    FlushDenormals flush;
    for (int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) {
      (*body)(task);
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks) {
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_all();
      }
    }
  }

  bool is_done() const { return done.load(std::memory_order_acquire) == tasks; }

  // The rest is a task's length away at most, so look before sleeping.
  void wait() {
    constexpr int kLooks = 2000;
    for (int look = 0; look < kLooks; ++look) {
      if (is_done()) return;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return is_done(); });
  }
};

}  // namespace

void parallel_for(Workers& workers, int64_t tasks, const std::function<void(int64_t)>& body) {
  const int64_t helpers = std::min(workers.threads(), tasks) - 1;
  if (helpers <= 0) {
    FlushDenormals flush;
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  auto job = std::make_shared<Job>(tasks, &body);
  for (int64_t helper = 0; helper < helpers; ++helper) {
    workers.schedule([job] { job->work(); });
  }
  job->work();
  job->wait();
}

}  // namespace talipot
