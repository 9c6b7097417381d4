#include "f32.h"

#include <cstring>

namespace talipot {
namespace {

constexpr int kMaxRows = 4;

void multiply_portable(int rows, int /*strips*/, const Tile& tile) {
  const auto* block = static_cast<const float*>(tile.block);
  float sums[kMaxRows][kStripColumns] = {};
  for (int64_t group = 0; group < tile.groups; ++group) {
    float weights[kStripColumns];
    std::memcpy(weights, tile.weights + group * kPanelStepBytes, sizeof weights);
    for (int row = 0; row < rows; ++row) {
      const float value = block[group * rows + row];
      for (int column = 0; column < kStripColumns; ++column) {
        sums[row][column] += weights[column] * value;
      }
    }
  }
  for (int row = 0; row < rows; ++row) {
    std::memcpy(tile.y + row * tile.stride, sums[row], tile.columns * sizeof(float));
  }
}

}  // namespace

void prepare_f32(const float* x, int rows, int64_t inner, int64_t /*groups*/, void* block,
                 RowInfo* /*info*/) {
  auto* elements = static_cast<float*>(block);
  for (int row = 0; row < rows; ++row) {
    const float* values = x + row * inner;
    for (int64_t k = 0; k < inner; ++k) elements[k * rows + row] = values[k];
  }
}

const MatmulKernel kF32Portable = {kF32Group, sizeof(float),    kMaxRows,
                                   0,         prepare_f32, multiply_portable};

const MatmulKernel& f32_kernel(Isa isa) {
#if TALIPOT_X86
  const CpuFeatures& cpu = cpu_features();
  if (isa >= Isa::kAvx512 && cpu.avx512) return kF32Avx512;
  if (isa >= Isa::kAvx2 && cpu.avx2) return kF32Avx2;
#endif
  (void)isa;
  return kF32Portable;
}

}  // namespace talipot
