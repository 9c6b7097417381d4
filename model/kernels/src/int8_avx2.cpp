#include "int8.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx2,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

// 8 columns to a vector.
struct Avx2Int8 {
  using Acc = __m256i;
  struct Weights {
    __m256i value;
    __m256i magnitude;
  };
  using Row = __m256i;
  static constexpr int kVectors = 4;
  static constexpr int kLanes = 8;
  static constexpr int kElementBytes = 4;
  static constexpr bool kWeightsInRegisters = false;
  static constexpr int kAheadBytes = 0;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm256_setzero_si256(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m256i value = _mm256_xor_si256(stored, _mm256_set1_epi8(-128));
    return {value, _mm256_abs_epi8(value)};
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    int32_t bits;
    __builtin_memcpy(&bits, element, sizeof bits);
    return _mm256_set1_epi32(bits);
  }

  // |w| times x with w's sign: |w| <= 128 and |x| <= 127, so that a sum of two products never
  // reaches the 16-bit instruction's limit.
  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, const Weights& weights, Row row) {
    const __m256i pairs =
        _mm256_maddubs_epi16(weights.magnitude, _mm256_sign_epi8(row, weights.value));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  TALIPOT_TARGET TALIPOT_INLINE static void store(Acc sum, const Tile& tile, int row, int column) {
    alignas(32) int32_t sums[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums), sum);
    for (int lane = 0; lane < kLanes && column + lane < tile.columns; ++lane) {
      tile.y[row * tile.stride + column + lane] =
          static_cast<float>(sums[lane]) *
          (tile.info[row].scale * tile.column_scale[column + lane]);
    }
  }
};

}  // namespace

const MatmulKernel kInt8Avx2 = {
    4, Avx2Int8::kElementBytes, 3, 1, prepare_int8, multiply_with<Avx2Int8, 3, 1>};

}  // namespace talipot

#endif
