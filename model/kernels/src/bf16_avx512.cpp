#include "bf16.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

// 16 columns to a vector, widened to float32.
struct Avx512Bf16 {
  using Acc = __m512;
  struct Weights {
    __m512 even;
    __m512 odd;
  };
  using Row = const float*;
  static constexpr int kVectors = 2;
  static constexpr int kLanes = 16;
  static constexpr int kElementBytes = kBf16Group * sizeof(float);
  static constexpr bool kWeightsInRegisters = true;
  static constexpr int kAheadBytes = 0;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm512_setzero_ps(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    const __m512i pairs = _mm512_loadu_si512(bytes);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000)))};
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    return reinterpret_cast<const float*>(element);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, const Weights& weights, Row row) {
    sum = _mm512_fmadd_ps(weights.even, _mm512_set1_ps(row[0]), sum);
    return _mm512_fmadd_ps(weights.odd, _mm512_set1_ps(row[1]), sum);
  }

  TALIPOT_TARGET TALIPOT_INLINE static void store(Acc sum, const Tile& tile, int row, int column) {
    const int64_t left = tile.columns - column;
    if (left <= 0) return;
    const auto mask = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
    _mm512_mask_storeu_ps(tile.y + row * tile.stride + column, mask, sum);
  }
};

}  // namespace

const MatmulKernel kBf16Avx512 = {
    kBf16Group, Avx512Bf16::kElementBytes, 6, 6, prepare_widened, multiply_with<Avx512Bf16, 6, 6>};

}  // namespace talipot

#endif
