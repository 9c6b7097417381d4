// How a pool keeps the keys or values of a token's head.
#pragma once

#include <cstdint>

namespace talipot {

enum class PoolFormat {
  kFloat32,
  kBf16,
  kInt8,  // head_dim int8, and behind them the float32 that they are to be multiplied by
};

constexpr int64_t kPoolScaleBytes = 4;

inline int64_t pool_element_bytes(PoolFormat format) {
  if (format == PoolFormat::kFloat32) return 4;
  return format == PoolFormat::kBf16 ? 2 : 1;
}

// From one head's first element to the next head's, in elements.
inline int64_t pool_row_elements(PoolFormat format, int64_t head_dim) {
  return format == PoolFormat::kInt8 ? head_dim + kPoolScaleBytes : head_dim;
}

}  // namespace talipot
