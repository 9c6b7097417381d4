// Working memory of a thread, kept from call to call.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace talipot {

// Aligned to a cache line; grows and never shrinks. What `reserve` returns is valid until the next
// `reserve` of the same object.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  template <typename T>
  T* reserve(size_t count) {
    const size_t wanted = (count * sizeof(T) + kLine - 1) / kLine * kLine;
    if (wanted > size_) {
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(kLine, wanted);
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = wanted;
    }
    return static_cast<T*>(data_);
  }

 private:
  static constexpr size_t kLine = 64;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace talipot
