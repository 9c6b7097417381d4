#include "bf16.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx2,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

// 8 columns to a vector, widened to float32.
struct Avx2Bf16 {
  using Acc = __m256;
  using Weights = __m256i;
  using Row = const float*;
  static constexpr int kVectors = 4;
  static constexpr int kLanes = 8;
  static constexpr int kElementBytes = kBf16Group * sizeof(float);
  static constexpr bool kWeightsInRegisters = false;
  static constexpr int kAheadBytes = 0;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm256_setzero_ps(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    return reinterpret_cast<const float*>(element);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, Weights pairs, Row row) {
    const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    const __m256 odd =
        _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000)));
    sum = _mm256_fmadd_ps(even, _mm256_broadcast_ss(row), sum);
    return _mm256_fmadd_ps(odd, _mm256_broadcast_ss(row + 1), sum);
  }

  TALIPOT_TARGET TALIPOT_INLINE static void store(Acc sum, const Tile& tile, int row, int column) {
    alignas(32) float sums[kLanes];
    _mm256_store_ps(sums, sum);
    for (int lane = 0; lane < kLanes && column + lane < tile.columns; ++lane) {
      tile.y[row * tile.stride + column + lane] = sums[lane];
    }
  }
};

}  // namespace

const MatmulKernel kBf16Avx2 = {
    kBf16Group, Avx2Bf16::kElementBytes, 3, 1, prepare_widened, multiply_with<Avx2Bf16, 3, 1>};

}  // namespace talipot

#endif
