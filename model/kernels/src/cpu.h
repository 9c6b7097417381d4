// Which instructions may be used: what the CPU has, and what the caller allows.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#define TALIPOT_X86 1
#include <immintrin.h>
#else
#define TALIPOT_X86 0
#endif

#define TALIPOT_INLINE inline __attribute__((always_inline))

namespace talipot {

// Ordered; model/kernels/native.py has the same names in the same order. A kernel that has no
// version for the level asked for takes the next lower one, so results are defined at every level.
enum class Isa : int32_t {
  kPortable = 0,   // what the compiler makes of plain C++
  kAvx2 = 1,       // AVX2 and FMA
  kAvx512 = 2,     // AVX-512 F, BW, DQ, VL
  kAvx512Dot = 3,  // and the dot products of int8 (VNNI) and bfloat16 (BF16), whichever is there
};

struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;
  bool vnni = false;
  bool bf16 = false;
};

// Found once; the operating system's support for the wide registers is part of the answer.
const CpuFeatures& cpu_features();

// The highest level of which this CPU has anything.
Isa best_isa();

}  // namespace talipot
