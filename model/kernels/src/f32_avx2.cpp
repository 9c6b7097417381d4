#include "f32.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx2,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

// 8 columns to a vector.
struct Avx2F32 {
  using Acc = __m256;
  using Weights = __m256;
  using Row = __m256;
  static constexpr int kVectors = 4;
  static constexpr int kLanes = 8;
  static constexpr int kElementBytes = sizeof(float);
  static constexpr bool kWeightsInRegisters = false;
  static constexpr int kAheadBytes = 0;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm256_setzero_ps(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(bytes));
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    return _mm256_broadcast_ss(reinterpret_cast<const float*>(element));
  }

  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, Weights weights, Row row) {
    return _mm256_fmadd_ps(weights, row, sum);
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

const MatmulKernel kF32Avx2 = {
    kF32Group, Avx2F32::kElementBytes, 3, 1, prepare_f32, multiply_with<Avx2F32, 3, 1>};

}  // namespace talipot

#endif
