// Tasks shared between the calling thread and XLA's own pool.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace talipot {

// A pool of threads that runs closures; the FFI handlers wrap XLA's in it.
class Workers {
 public:
  virtual ~Workers() = default;
  // How many threads may work at the same time, the caller included; at least 1.
  virtual int64_t threads() const = 0;
  virtual void schedule(std::function<void()> work) = 0;
  // What `parallel_for` does.
  virtual void run(int64_t tasks, const std::function<void(int64_t)>& body);
};

// Calls body(0) ... body(tasks - 1), each once, in any order and on any thread, and returns when
// all have returned. The caller takes tasks too, so it never waits for a thread that has not begun:
// a pool that is busy, or blocked in other calls of this function, makes it slower but not stuck.
//
// Every body runs with denormals flushed to zero: a pool thread's setting could otherwise differ
// from the caller's, and with it the bits of a result.
//
// body must not throw.
void parallel_for(Workers& workers, int64_t tasks, const std::function<void(int64_t)>& body);

// Threads of other workers, kept for many `parallel_for`s in close succession: between two of them
// they look out for the next one instead of going to sleep, which costs more than a short one
// itself. One that the pool is late with joins when it comes.
class Team : public Workers {
 public:
  explicit Team(Workers& pool);
  ~Team() override;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int64_t threads() const override { return threads_; }
  void schedule(std::function<void()> work) override { work(); }
  void run(int64_t tasks, const std::function<void(int64_t)>& body) override;

 private:
  struct State;
  int64_t threads_;
  std::shared_ptr<State> state_;
};

}  // namespace talipot
