// What the machine can do, for benchmarks to compare the kernels with.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "cpu.h"
#include "matmul.h"

#define TALIPOT_EXPORT extern "C" __attribute__((visibility("default")))

// Reads memory once, from begin to end; bytes is a multiple of 64. The sum is there to be used.
TALIPOT_EXPORT uint64_t talipot_probe_read(const void* memory, int64_t bytes) {
  using Vector = uint64_t __attribute__((vector_size(16)));
  const auto* at = static_cast<const Vector*>(memory);
  Vector sums[4] = {};
  for (int64_t i = 0; i < bytes / 16; i += 4) {
    for (int j = 0; j < 4; ++j) sums[j] ^= at[i + j];
  }
  const Vector sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  return sum[0] ^ sum[1];
}

// Multiplies one tile, which stays in the first level of cache, again and again, by the kernel whose
// groups have so many elements. Returns how many products of two numbers that were.
TALIPOT_EXPORT int64_t talipot_probe_products(int32_t group, int32_t isa, int64_t repeats) {
  using namespace talipot;
  constexpr int64_t kGroups = 64;
  const auto level = static_cast<Isa>(isa);
  const MatmulKernel* const kernels[] = {&f32_kernel(level), &bf16_kernel(level),
                                         &int8_kernel(level)};
  const auto* found = std::find_if(std::begin(kernels), std::end(kernels),
                                   [&](const auto* kernel) { return kernel->group == group; });
  if (found == std::end(kernels)) return 0;
  const MatmulKernel& kernel = **found;
  const int rows = kernel.max_rows;
  const int strips = rows <= kernel.paired_rows ? 2 : 1;
  const int64_t columns = strips * kStripColumns;
  const int64_t inner = kGroups * kernel.group;
  const std::vector<float> x(rows * inner, 1.0f), scale(columns, 1.0f);
  std::vector<float> y(rows * columns);
  std::vector<uint8_t> block(rows * kGroups * kernel.element_bytes);
  const std::vector<uint8_t> weights(kGroups * kPanelStepBytes);
  std::vector<RowInfo> info(rows);
  kernel.prepare(x.data(), rows, inner, kGroups, block.data(), info.data());
  const Tile tile{block.data(), info.data(), weights.data(), kGroups,
                  columns,      scale.data(), y.data(),      columns, nullptr, 0};
  for (int64_t i = 0; i < repeats; ++i) kernel.multiply(rows, strips, tile);
  return repeats * rows * inner * columns;
}
