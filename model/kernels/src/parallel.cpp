#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "cpu.h"

namespace talipot {
namespace {

// For the length of its life, results below the smallest normal number are 0, and so are operands.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(read()) { write(saved_ | kFlush); }
  ~FlushDenormals() { write(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if TALIPOT_X86
  static constexpr uint64_t kFlush = 0x8000 | 0x0040;  // FTZ and DAZ
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = 1 << 24;  // FZ
  static uint64_t read() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void write(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t read() { return 0; }
  static void write(uint64_t) {}
#endif
  const uint64_t saved_;
};

inline void pause() {
#if TALIPOT_X86
  _mm_pause();
#endif
}

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
