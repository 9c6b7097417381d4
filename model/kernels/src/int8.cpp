#include "int8.h"

#include <algorithm>
#include <cstring>

namespace talipot {
namespace {

constexpr int kGroup = 4;

// For magnitudes below 2^22: the sum has no bits left for a fraction. Without SSE4.1 the library's
// function is a call.
float round_to_even(float value) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  return value + kShift - kShift;
}

void multiply_portable(int rows, int /*strips*/, const Tile& tile) {
  const auto* block = static_cast<const int8_t*>(tile.block);
  const auto columns = static_cast<int>(tile.columns);
  for (int row = 0; row < rows; ++row) {
    int32_t sums[kStripColumns] = {};
    for (int64_t group = 0; group < tile.groups; ++group) {
      const int8_t* values = block + (group * rows + row) * kGroup;
      const uint8_t* weights = tile.weights + group * kPanelStepBytes;
      for (int column = 0; column < kStripColumns; ++column) {
        for (int k = 0; k < kGroup; ++k) {
          sums[column] += values[k] * (weights[column * kGroup + k] - kWeightOffset);
        }
      }
    }
    for (int column = 0; column < columns; ++column) {
      tile.y[row * tile.stride + column] =
          static_cast<float>(sums[column]) * (tile.info[row].scale * tile.column_scale[column]);
    }
  }
}

}  // namespace

void prepare_int8(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                  RowInfo* info) {
  auto* elements = static_cast<int8_t*>(block);
  for (int row = 0; row < rows; ++row) {
    const float* values = x + row * inner;
    uint32_t largest = 0;
    for (int64_t k = 0; k < inner; ++k) {
      uint32_t bits;
      std::memcpy(&bits, values + k, sizeof bits);
      largest = std::max(largest, bits & 0x7fffffff);
    }
    const RowScale scale = row_scale(largest);
    int32_t sum = 0;
    for (int64_t k = 0; k < groups * kGroup; ++k) {
      int8_t q = 0;
      if (k < inner && scale.inverse != 0.0f) {
        q = static_cast<int8_t>(round_to_even(values[k] * scale.inverse));
      }
      elements[(k / kGroup * rows + row) * kGroup + k % kGroup] = q;
      sum += q;
    }
    info[row] = {scale.scale, sum};
  }
}

const MatmulKernel kInt8Portable = {kGroup, kGroup, 4, 0, prepare_int8, multiply_portable};

const MatmulKernel& int8_kernel(Isa isa) {
#if TALIPOT_X86
  const CpuFeatures& cpu = cpu_features();
  if (isa >= Isa::kAvx512Dot && cpu.vnni) return kInt8Avx512Dot;
  if (isa >= Isa::kAvx2 && cpu.avx2) return kInt8Avx2;
#endif
  (void)isa;
  return kInt8Portable;
}

}  // namespace talipot
