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

// The compiler's own vectors, of 4 columns: bytes, and their products in 16 and 32 bits.
using Bytes = uint8_t __attribute__((vector_size(16)));
using Halves = int16_t __attribute__((vector_size(32)));
using Words = int32_t __attribute__((vector_size(32)));

constexpr int kVectorColumns = 4;
constexpr int kVectors = kStripColumns / kVectorColumns;
constexpr int kMaxRows = 4;

void multiply_portable(int rows, int /*strips*/, const Tile& tile) {
  const auto* block = static_cast<const int8_t*>(tile.block);
  // Two words to a column, each the sum of every other pair of products.
  Words sums[kMaxRows][kVectors] = {};
  for (int64_t group = 0; group < tile.groups; ++group) {
    Halves values[kMaxRows];
    for (int row = 0; row < rows; ++row) {
      const int8_t* x = block + (group * rows + row) * kGroup;
      values[row] = Halves{x[0], x[1], x[2], x[3], x[0], x[1], x[2], x[3],
                           x[0], x[1], x[2], x[3], x[0], x[1], x[2], x[3]};
    }
    const uint8_t* step = tile.weights + group * kPanelStepBytes;
    for (int vector = 0; vector < kVectors; ++vector) {
      Bytes stored;
      std::memcpy(&stored, step + vector * sizeof stored, sizeof stored);
      const Halves weights =
          __builtin_convertvector(stored, Halves) - static_cast<int16_t>(kWeightOffset);
      for (int row = 0; row < rows; ++row) {
        // At most 128 * 127: it fits.
        const Halves products = weights * values[row];
        Words pairs;
        std::memcpy(&pairs, &products, sizeof pairs);
        sums[row][vector] += (pairs << 16 >> 16) + (pairs >> 16);
      }
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < static_cast<int>(tile.columns); ++column) {
      const Words& pair = sums[row][column / kVectorColumns];
      const int first = column % kVectorColumns * 2;
      tile.y[row * tile.stride + column] = static_cast<float>(pair[first] + pair[first + 1]) *
                                           (tile.info[row].scale * tile.column_scale[column]);
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

const MatmulKernel kInt8Portable = {kGroup, kGroup, kMaxRows, 0, prepare_int8, multiply_portable};

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
