#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

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
  workers.run(tasks, body);
}

void Workers::run(int64_t tasks, const std::function<void(int64_t)>& body) {
  const int64_t helpers = std::min(threads(), tasks) - 1;
  if (helpers <= 0) {
    FlushDenormals flush;
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  auto job = std::make_shared<Job>(tasks, &body);
  for (int64_t helper = 0; helper < helpers; ++helper) {
    schedule([job] { job->work(); });
  }
  job->work();
  job->wait();
}

// What the leader and its helpers share. A ticket holds the number of tasks of the run at hand above
// the number of those taken, so that whoever takes one knows by the same stroke whether there was
// one: a run ends only when all that were taken are done, so `body` is then the body of that task.
struct Team::State {
  static constexpr int kTasksShift = 32;
  static constexpr int64_t kTakenMask = (int64_t{1} << kTasksShift) - 1;
  static constexpr int kLooks = 4000;

  std::atomic<int64_t> ticket{0};
  std::atomic<int64_t> done{0};
  std::atomic<bool> is_over{false};
  const std::function<void(int64_t)>* body = nullptr;

  static bool has_task(int64_t ticket) { return (ticket & kTakenMask) < ticket >> kTasksShift; }

  // Until there is nothing to take; whether anything was.
  bool work() {
    bool has_worked = false;
    while (has_task(ticket.load(std::memory_order_relaxed))) {
      const int64_t taken = ticket.fetch_add(1, std::memory_order_acq_rel);
      if (!has_task(taken)) break;
      (*body)(taken & kTakenMask);
      done.fetch_add(1, std::memory_order_acq_rel);
      has_worked = true;
    }
    return has_worked;
  }

  void help() {
    FlushDenormals flush;
    int idle = 0;
    while (!is_over.load(std::memory_order_acquire)) {
      if (work()) {
        idle = 0;
      } else if (++idle < kLooks) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }
};

Team::Team(Workers& pool) : threads_(pool.threads()), state_(std::make_shared<State>()) {
  for (int64_t helper = 1; helper < threads_; ++helper) {
    pool.schedule([state = state_] { state->help(); });
  }
}

Team::~Team() { state_->is_over.store(true, std::memory_order_release); }

void Team::run(int64_t tasks, const std::function<void(int64_t)>& body) {
  FlushDenormals flush;
  if (tasks <= 1 || threads_ == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  State& state = *state_;
  state.body = &body;
  state.done.store(0, std::memory_order_relaxed);
  state.ticket.store(tasks << State::kTasksShift, std::memory_order_release);
  state.work();
  // What others have taken is a task's length away at most.
  for (int look = 0; state.done.load(std::memory_order_acquire) < tasks; ++look) {
    if (look < State::kLooks) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace talipot
