// What Python calls: plain C functions over arrays that the caller owns.
#pragma once

#include <cstdint>

#define TALIPOT_EXPORT extern "C" __attribute__((visibility("default")))
#define TALIPOT_INLINE inline __attribute__((always_inline))
