#include "bf16.h"

#include <cstring>

#include "bfloat16.h"

namespace talipot {
namespace {

void multiply_portable(int rows, int /*strips*/, const Tile& tile) {
  const auto* block = static_cast<const float*>(tile.block);
  const auto columns = static_cast<int>(tile.columns);
  for (int row = 0; row < rows; ++row) {
    float sums[kStripColumns] = {};
    for (int64_t group = 0; group < tile.groups; ++group) {
      const float* values = block + (group * rows + row) * kBf16Group;
      uint32_t pairs[kStripColumns];
      std::memcpy(pairs, tile.weights + group * kPanelStepBytes, sizeof pairs);
      for (int column = 0; column < kStripColumns; ++column) {
        sums[column] += float_from_bits(pairs[column] << 16) * values[0];
        sums[column] += float_from_bits(pairs[column] & 0xffff0000) * values[1];
      }
    }
    std::memcpy(tile.y + row * tile.stride, sums, columns * sizeof(float));
  }
}

}  // namespace

void prepare_widened(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                     RowInfo* /*info*/) {
  auto* elements = static_cast<float*>(block);
  for (int row = 0; row < rows; ++row) {
    const float* values = x + row * inner;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t k = group * kBf16Group;
      float* pair = elements + (group * rows + row) * kBf16Group;
      pair[0] = float_from_bits(bf16_bits(values[k]));
      pair[1] = k + 1 < inner ? float_from_bits(bf16_bits(values[k + 1])) : 0.0f;
    }
  }
}

const MatmulKernel kBf16Portable = {
    kBf16Group, kBf16Group * sizeof(float), 4, 0, prepare_widened, multiply_portable};

const MatmulKernel& bf16_kernel(Isa isa) {
#if TALIPOT_X86
  const CpuFeatures& cpu = cpu_features();
  if (isa >= Isa::kAvx512Dot && cpu.bf16) return kBf16Avx512Dot;
  if (isa >= Isa::kAvx512 && cpu.avx512) return kBf16Avx512;
  if (isa >= Isa::kAvx2 && cpu.avx2) return kBf16Avx2;
#endif
  (void)isa;
  return kBf16Portable;
}

}  // namespace talipot
