#include "bf16.h"

#if TALIPOT_X86

#include <algorithm>
#include <cstring>

#define TALIPOT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

constexpr int kLoad = 16;

// 16 columns to a vector.
struct Avx512Bf16Dot {
  using Acc = __m512;
  using Weights = __m512bh;
  using Row = __m512bh;
  static constexpr int kVectors = 2;
  static constexpr int kLanes = 16;
  static constexpr int kElementBytes = 4;
  static constexpr bool kWeightsInRegisters = true;
  static constexpr int kAheadBytes = 0;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm512_setzero_ps(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    return (__m512bh)_mm512_loadu_si512(bytes);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    int32_t bits;
    __builtin_memcpy(&bits, element, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, Weights weights, Row row) {
    return _mm512_dpbf16_ps(sum, weights, row);
  }

  TALIPOT_TARGET TALIPOT_INLINE static void store(Acc sum, const Tile& tile, int row, int column) {
    const int64_t left = tile.columns - column;
    if (left <= 0) return;
    const auto mask = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
    _mm512_mask_storeu_ps(tile.y + row * tile.stride + column, mask, sum);
  }
};

TALIPOT_TARGET void prepare(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                            RowInfo* /*info*/) {
  constexpr int kGroups = kLoad / kBf16Group;
  auto* elements = static_cast<int32_t*>(block);
  for (int row = 0; row < rows; ++row) {
    const float* values = x + row * inner;
    for (int64_t k = 0; k < inner; k += kLoad) {
      const int64_t left = inner - k;
      const auto mask = static_cast<__mmask16>(left >= kLoad ? 0xffff : (1 << left) - 1);
      const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, values + k));
      alignas(32) int32_t pairs[kGroups];
      std::memcpy(pairs, &narrow, sizeof pairs);
      const int64_t group = k / kBf16Group;
      const int64_t end = std::min<int64_t>(kGroups, groups - group);
      for (int64_t i = 0; i < end; ++i) elements[(group + i) * rows + row] = pairs[i];
    }
  }
}

}  // namespace

const MatmulKernel kBf16Avx512Dot = {
    kBf16Group, Avx512Bf16Dot::kElementBytes, 6, 6, prepare, multiply_with<Avx512Bf16Dot, 6, 6>};

}  // namespace talipot

#endif
