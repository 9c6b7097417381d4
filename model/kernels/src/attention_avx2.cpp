#include "cpu.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx2,fma")))
#include "attention_lanes.h"

namespace talipot {
namespace {

struct Avx2Lanes {
  using Value = __m256;
  using Limits = __m256i;
  using Mask = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kKeys = 8;
  static constexpr int kDims = 8;

  TALIPOT_TARGET TALIPOT_INLINE static Value zero() { return _mm256_setzero_ps(); }
  TALIPOT_TARGET TALIPOT_INLINE static Value load(const float* at) { return _mm256_loadu_ps(at); }
  TALIPOT_TARGET TALIPOT_INLINE static Value load_bf16(const uint16_t* at) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value load_int8(const int8_t* at) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  TALIPOT_TARGET TALIPOT_INLINE static void store(float* at, Value value) {
    _mm256_storeu_ps(at, value);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value broadcast(float x) { return _mm256_set1_ps(x); }
  TALIPOT_TARGET TALIPOT_INLINE static Limits load_limits(const int32_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value add(Value a, Value b) { return _mm256_add_ps(a, b); }
  TALIPOT_TARGET TALIPOT_INLINE static Value subtract(Value a, Value b) {
    return _mm256_sub_ps(a, b);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value multiply(Value a, Value b) {
    return _mm256_mul_ps(a, b);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value divide(Value a, Value b) {
    return _mm256_div_ps(a, b);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value fma(Value a, Value b, Value c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value max(Value a, Value b) { return _mm256_max_ps(a, b); }
  TALIPOT_TARGET TALIPOT_INLINE static Value power(Value shifted) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Mask sees(Limits limits, int32_t position) {
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(limits, _mm256_set1_epi32(position - 1)));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value select(Mask mask, Value a, Value b) {
    return _mm256_blendv_ps(b, a, mask);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value fma_where(Mask mask, Value a, Value b, Value c) {
    return _mm256_blendv_ps(c, _mm256_fmadd_ps(a, b, c), mask);
  }
};

}  // namespace

// 16 registers hold the sums of one vector of lanes, not of two.
const AttentionKernel& attention_kernel_avx2(int64_t /*rows*/) {
  static constexpr AttentionKernel kernel = Lanes<Avx2Lanes, 1>::kernel();
  return kernel;
}

}  // namespace talipot

#endif
