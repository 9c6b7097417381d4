// Which instructions may be used: what the CPU has, and what the caller allows.
#pragma once

#include <cstdint>

#define TALIPOT_EXPORT extern "C" __attribute__((visibility("default")))
#define TALIPOT_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define TALIPOT_X86 1
#define TALIPOT_AVX2 __attribute__((target("avx2,fma")))
#define TALIPOT_AVX512 __attribute__((target("avx512f,avx2,fma")))
#else
#define TALIPOT_X86 0
#endif

namespace talipot {

// Ordered; library.py has the same names in the same order.
enum class Isa : int32_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

// The highest level that this CPU has, with the operating system's support for its registers.
Isa best_isa();

}  // namespace talipot
