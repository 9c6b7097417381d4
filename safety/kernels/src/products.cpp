#include "products.h"

#include <algorithm>

namespace talipot {
namespace {

using Floats4 = float __attribute__((vector_size(16), aligned(4)));
using Floats8 = float __attribute__((vector_size(32), aligned(4)));
using Floats16 = float __attribute__((vector_size(64), aligned(4)));

// One panel of `kRows` rows, in registers throughout.
template <class Floats, int kRows>
TALIPOT_INLINE void multiply_rows(const Product& product, const float* panel, int64_t row,
                                  float* results) {
  constexpr int kLanes = sizeof(Floats) / sizeof(float);
  constexpr int kVectors = kPanel / kLanes;
  Floats sums[kRows][kVectors] = {};
  for (int64_t tap = 0; tap < product.taps; ++tap) {
    const float* inputs[kRows];
    for (int i = 0; i < kRows; ++i) inputs[i] = product.inputs[tap * product.stride + row + i];
    for (int64_t k = 0; k < product.depth; ++k, panel += kPanel) {
      Floats factors[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        factors[v] = *reinterpret_cast<const Floats*>(panel + v * kLanes);
      }
      for (int i = 0; i < kRows; ++i) {
        for (int v = 0; v < kVectors; ++v) sums[i][v] += factors[v] * inputs[i][k];
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    if (row + i >= product.count) return;
    for (int v = 0; v < kVectors; ++v) {
      *reinterpret_cast<Floats*>(results + (row + i) * product.columns + v * kLanes) = sums[i][v];
    }
  }
}

template <class Floats, int kRows>
TALIPOT_INLINE void multiply_panels(const Product& product) {
  static_assert(kMostRows % kRows == 0, "lists of rows are filled up to kMostRows");
  const float* panel = product.panels;
  for (int64_t column = 0; column < product.columns; column += kPanel) {
    for (int64_t row = 0; row < product.count; row += kRows) {
      multiply_rows<Floats, kRows>(product, panel, row, product.results + column);
    }
    panel += product.taps * product.depth * kPanel;
  }
}

// As many rows as the level has registers for.
void multiply_portable(const Product& product) {
  multiply_panels<Floats4, TALIPOT_X86 ? 1 : 3>(product);
}

#if TALIPOT_X86
TALIPOT_AVX2 void multiply_avx2(const Product& product) { multiply_panels<Floats8, 3>(product); }

TALIPOT_AVX512 void multiply_avx512(const Product& product) {
  multiply_panels<Floats16, kMostRows>(product);
}
#endif

}  // namespace

void multiply(Isa isa, const Product& product) {
  switch (std::min(isa, best_isa())) {
#if TALIPOT_X86
    case Isa::kAvx512:
      return multiply_avx512(product);
    case Isa::kAvx2:
      return multiply_avx2(product);
#endif
    default:
      return multiply_portable(product);
  }
}

}  // namespace talipot
