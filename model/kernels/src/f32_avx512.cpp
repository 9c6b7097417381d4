#include "f32.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

// 16 columns to a vector.
struct Avx512F32 {
  using Acc = __m512;
  using Weights = __m512;
  using Row = __m512;
  static constexpr int kVectors = 2;
  static constexpr int kLanes = 16;
  static constexpr int kElementBytes = sizeof(float);
  static constexpr bool kWeightsInRegisters = true;
  static constexpr int kAheadBytes = 4096;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm512_setzero_ps(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    return _mm512_loadu_ps(bytes);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    return _mm512_set1_ps(*reinterpret_cast<const float*>(element));
  }

  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, Weights weights, Row row) {
    return _mm512_fmadd_ps(weights, row, sum);
  }

  TALIPOT_TARGET TALIPOT_INLINE static void store(Acc sum, const Tile& tile, int row, int column) {
    const int64_t left = tile.columns - column;
    if (left <= 0) return;
    const auto mask = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
    _mm512_mask_storeu_ps(tile.y + row * tile.stride + column, mask, sum);
  }
};

constexpr int kMaxRows = 6;
constexpr int kPairedRows = 6;

}  // namespace

const MatmulKernel kF32Avx512 = {kF32Group,   Avx512F32::kElementBytes,
                                 kMaxRows,    kPairedRows,
                                 prepare_f32, multiply_with<Avx512F32, kMaxRows, kPairedRows>};

}  // namespace talipot

#endif
