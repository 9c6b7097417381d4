// What every handler of XLA's calls needs.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <utility>

#include "parallel.h"
#include "pool_format.h"
#include "xla/ffi/api/ffi.h"

#define TALIPOT_EXPORT extern "C" __attribute__((visibility("default")))

namespace talipot {

namespace ffi = xla::ffi;

class XlaWorkers : public Workers {
 public:
  explicit XlaWorkers(ffi::ThreadPool pool) : pool_(std::move(pool)) {}
  int64_t threads() const override { return std::max<int64_t>(pool_.num_threads(), 1); }
  void schedule(std::function<void()> work) override { pool_.Schedule(std::move(work)); }

 private:
  ffi::ThreadPool pool_;
};

// Everything that a kernel does, with a failure made into XLA's kind of error.
template <typename Call>
ffi::Error guarded(const Call& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

inline PoolFormat pool_format(const ffi::AnyBuffer& buffer) {
  if (buffer.element_type() == ffi::S8) return PoolFormat::kInt8;
  return buffer.element_type() == ffi::BF16 ? PoolFormat::kBf16 : PoolFormat::kFloat32;
}

// XLA gives both the same memory where it can; where the pool has another use it gives a copy's.
inline void carry_over(const ffi::AnyBuffer& from, ffi::AnyBuffer& to) {
  if (to.untyped_data() != from.untyped_data()) {
    std::memcpy(to.untyped_data(), from.untyped_data(), from.size_bytes());
  }
}

}  // namespace talipot
