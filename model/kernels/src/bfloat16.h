// float32 to bfloat16 with plain instructions.
#pragma once

#include <cstdint>
#include <cstring>

namespace talipot {

// To nearest, ties to even, as the upper half of a float32's bits; the lower half is 0.
inline uint32_t bf16_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  // Rounding a NaN could carry into infinity.
  bits = is_nan ? bits | 0x00400000 : bits + 0x7fff + (bits >> 16 & 1);
  return bits & 0xffff0000;
}

inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace talipot
