// The int8 product's parts that are the same on every CPU.
//
// A row of x becomes q = round(x * (127 / absmax)), to nearest and ties to even, with the scale
// absmax / 127. y is float(sum over K of q * w) * (row scale * column scale). All of it is exact or
// a single IEEE operation, so every level gives the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "matmul.h"

namespace talipot {

// Weights are stored with this added, as the dot product wants one of its operands unsigned. The
// excess in a sum is kWeightOffset times the sum of the row's elements.
constexpr int32_t kWeightOffset = 128;

struct RowScale {
  float scale;
  float inverse;  // 0 where every element becomes 0
};

// From the largest bit pattern of a row's magnitudes: among those, infinities and NaN are largest,
// and such a row's results are all NaN. A row too small to divide by is 0.
inline RowScale row_scale(uint32_t largest_bits) {
  constexpr uint32_t kInfinity = 0x7f800000;
  constexpr float kSmallest = 1e-30f;
  if (largest_bits >= kInfinity) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  float largest;
  __builtin_memcpy(&largest, &largest_bits, sizeof largest);
  if (largest < kSmallest) return {0.0f, 0.0f};
  return {largest / 127.0f, 127.0f / largest};
}

// MatmulKernel::prepare with plain instructions; an element is 4 int8.
void prepare_int8(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                  RowInfo* info);

extern const MatmulKernel kInt8Portable;
#if TALIPOT_X86
extern const MatmulKernel kInt8Avx2;
extern const MatmulKernel kInt8Avx512Dot;
#endif

}  // namespace talipot
