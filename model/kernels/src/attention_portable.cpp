#define TALIPOT_TARGET
#include "attention_lanes.h"

namespace talipot {
namespace {

// The compiler's own vectors, which it makes of whatever the baseline has.
struct PortableLanes {
  using Value = float __attribute__((vector_size(16)));
  using Limits = int32_t __attribute__((vector_size(16)));
  using Mask = Limits;
  static constexpr int kLanes = 4;
  static constexpr int kKeys = 4;
  static constexpr int kDims = 4;

  TALIPOT_INLINE static Value zero() { return Value{}; }
  TALIPOT_INLINE static Value load(const float* at) {
    Value value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  TALIPOT_INLINE static Value load_bf16(const uint16_t* at) {
    const Limits bits = {at[0] << 16, at[1] << 16, at[2] << 16, at[3] << 16};
    Value value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  TALIPOT_INLINE static Value load_int8(const int8_t* at) {
    return Value{static_cast<float>(at[0]), static_cast<float>(at[1]), static_cast<float>(at[2]),
                 static_cast<float>(at[3])};
  }
  TALIPOT_INLINE static void store(float* at, Value value) {
    std::memcpy(at, &value, sizeof value);
  }
  TALIPOT_INLINE static Value broadcast(float x) { return Value{x, x, x, x}; }
  TALIPOT_INLINE static Limits load_limits(const int32_t* at) {
    Limits value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  TALIPOT_INLINE static Value add(Value a, Value b) { return a + b; }
  TALIPOT_INLINE static Value subtract(Value a, Value b) { return a - b; }
  TALIPOT_INLINE static Value multiply(Value a, Value b) { return a * b; }
  TALIPOT_INLINE static Value divide(Value a, Value b) { return a / b; }
  TALIPOT_INLINE static Value fma(Value a, Value b, Value c) { return a * b + c; }
  TALIPOT_INLINE static Value max(Value a, Value b) { return a > b ? a : b; }
  TALIPOT_INLINE static Value power(Value shifted) {
    Limits bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000;
    std::memcpy(&shifted, &bits, sizeof bits);
    return shifted;
  }
  TALIPOT_INLINE static Mask sees(Limits limits, int32_t position) { return limits >= position; }
  TALIPOT_INLINE static Value select(Mask mask, Value a, Value b) { return mask ? a : b; }
  TALIPOT_INLINE static Value fma_where(Mask mask, Value a, Value b, Value c) {
    return mask ? a * b + c : c;
  }
};

}  // namespace

const AttentionKernel& attention_kernel_portable(int64_t /*rows*/) {
  static constexpr AttentionKernel kernel = Lanes<PortableLanes, 2>::kernel();
  return kernel;
}

}  // namespace talipot
