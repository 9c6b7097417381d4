#include "int8.h"

#if TALIPOT_X86

#include <algorithm>
#include <cstring>

#define TALIPOT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#include "matmul_tile.h"

namespace talipot {
namespace {

constexpr int kGroup = 4;
constexpr int kLoad = 16;

// 16 columns to a vector.
struct Avx512Int8 {
  using Acc = __m512i;
  using Weights = __m512i;
  using Row = __m512i;
  static constexpr int kVectors = 2;
  static constexpr int kLanes = 16;
  static constexpr int kElementBytes = 4;
  static constexpr bool kWeightsInRegisters = true;
  static constexpr int kAheadBytes = 0;

  TALIPOT_TARGET TALIPOT_INLINE static Acc zero() { return _mm512_setzero_si512(); }

  TALIPOT_TARGET TALIPOT_INLINE static Weights load(const uint8_t* bytes) {
    return _mm512_loadu_si512(bytes);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Row broadcast(const uint8_t* element) {
    int32_t bits;
    __builtin_memcpy(&bits, element, sizeof bits);
    return _mm512_set1_epi32(bits);
  }

  TALIPOT_TARGET TALIPOT_INLINE static Acc step(Acc sum, Weights weights, Row row) {
    return _mm512_dpbusd_epi32(sum, weights, row);
  }

  TALIPOT_TARGET TALIPOT_INLINE static void store(Acc sum, const Tile& tile, int row, int column) {
    const int64_t left = tile.columns - column;
    if (left <= 0) return;
    const auto mask = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
    const RowInfo& info = tile.info[row];
    const __m512i exact = _mm512_sub_epi32(sum, _mm512_set1_epi32(kWeightOffset * info.sum));
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(info.scale),
                                       _mm512_maskz_loadu_ps(mask, tile.column_scale + column));
    _mm512_mask_storeu_ps(tile.y + row * tile.stride + column, mask,
                          _mm512_mul_ps(_mm512_cvtepi32_ps(exact), scale));
  }
};

TALIPOT_TARGET __mmask16 first(int64_t count) {
  return static_cast<__mmask16>(count >= kLoad ? 0xffff : (1 << count) - 1);
}

TALIPOT_TARGET uint32_t largest_bits(const float* values, int64_t inner) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t k = 0; k < inner; k += kLoad) {
    const __m512i bits = _mm512_maskz_loadu_epi32(first(inner - k), values + k);
    largest = _mm512_max_epi32(largest, _mm512_and_si512(bits, magnitude));
  }
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(largest));
}

TALIPOT_TARGET void prepare(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                            RowInfo* info) {
  constexpr int kGroups = kLoad / kGroup;
  auto* elements = static_cast<int32_t*>(block);
  for (int row = 0; row < rows; ++row) {
    const float* values = x + row * inner;
    const RowScale scale = row_scale(largest_bits(values, inner));
    // A masked lane is 0, so an infinity is never multiplied by an inverse of 0.
    const int64_t used = scale.inverse == 0.0f ? 0 : inner;
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t k = 0; k < inner; k += kLoad) {
      const __mmask16 mask = first(std::max<int64_t>(used - k, 0));
      const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, values + k), inverse);
      const __m512i q =
          _mm512_cvt_roundps_epi32(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      sum = _mm512_add_epi32(sum, q);
      alignas(16) int32_t packed[kGroups];
      _mm_store_si128(reinterpret_cast<__m128i*>(packed), _mm512_cvtepi32_epi8(q));
      const int64_t group = k / kGroup;
      const int64_t end = std::min<int64_t>(kGroups, groups - group);
      for (int64_t i = 0; i < end; ++i) elements[(group + i) * rows + row] = packed[i];
    }
    info[row] = {scale.scale, _mm512_reduce_add_epi32(sum)};
  }
}

}  // namespace

const MatmulKernel kInt8Avx512Dot = {
    kGroup, Avx512Int8::kElementBytes, 6, 6, prepare, multiply_with<Avx512Int8, 6, 6>};

}  // namespace talipot

#endif
