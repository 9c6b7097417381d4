#include "cpu.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#include "attention_lanes.h"

namespace talipot {
namespace {

// Few rows: two half vectors are as fast as one whole.
struct HalfLanes {
  using Value = __m256;
  using Limits = __m256i;
  using Mask = __mmask8;
  static constexpr int kLanes = 8;
  static constexpr int kKeys = 8;
  static constexpr int kDims = 16;

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
    return _mm256_cmpge_epi32_mask(limits, _mm256_set1_epi32(position));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value select(Mask mask, Value a, Value b) {
    return _mm256_mask_blend_ps(mask, b, a);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value fma_where(Mask mask, Value a, Value b, Value c) {
    return _mm256_mask3_fmadd_ps(a, b, c, mask);
  }
};

struct WholeLanes {
  using Value = __m512;
  using Limits = __m512i;
  using Mask = __mmask16;
  static constexpr int kLanes = 16;
  static constexpr int kKeys = 8;
  static constexpr int kDims = 8;

  TALIPOT_TARGET TALIPOT_INLINE static Value zero() { return _mm512_setzero_ps(); }
  TALIPOT_TARGET TALIPOT_INLINE static Value load(const float* at) { return _mm512_loadu_ps(at); }
  TALIPOT_TARGET TALIPOT_INLINE static Value load_bf16(const uint16_t* at) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value load_int8(const int8_t* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  TALIPOT_TARGET TALIPOT_INLINE static void store(float* at, Value value) {
    _mm512_storeu_ps(at, value);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value broadcast(float x) { return _mm512_set1_ps(x); }
  TALIPOT_TARGET TALIPOT_INLINE static Limits load_limits(const int32_t* at) {
    return _mm512_loadu_si512(at);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value add(Value a, Value b) { return _mm512_add_ps(a, b); }
  TALIPOT_TARGET TALIPOT_INLINE static Value subtract(Value a, Value b) {
    return _mm512_sub_ps(a, b);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value multiply(Value a, Value b) {
    return _mm512_mul_ps(a, b);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value divide(Value a, Value b) {
    return _mm512_div_ps(a, b);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value fma(Value a, Value b, Value c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value max(Value a, Value b) { return _mm512_max_ps(a, b); }
  TALIPOT_TARGET TALIPOT_INLINE static Value power(Value shifted) {
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f800000)));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Mask sees(Limits limits, int32_t position) {
    return _mm512_cmpge_epi32_mask(limits, _mm512_set1_epi32(position));
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value select(Mask mask, Value a, Value b) {
    return _mm512_mask_blend_ps(mask, b, a);
  }
  TALIPOT_TARGET TALIPOT_INLINE static Value fma_where(Mask mask, Value a, Value b, Value c) {
    return _mm512_mask3_fmadd_ps(a, b, c, mask);
  }
};

}  // namespace

const AttentionKernel& attention_kernel_avx512(int64_t rows) {
  static constexpr AttentionKernel half = Lanes<HalfLanes, 1>::kernel();
  static constexpr AttentionKernel whole = Lanes<WholeLanes, 1>::kernel();
  static constexpr AttentionKernel pair = Lanes<WholeLanes, 2>::kernel();
  if (rows <= half.lanes) return half;
  return rows <= whole.lanes ? whole : pair;
}

}  // namespace talipot

#endif
