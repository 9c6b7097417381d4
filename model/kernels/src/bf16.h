// The bfloat16 product's parts that are the same on every CPU.
//
// x is rounded to bfloat16, to nearest and ties to even; products are summed in float32 in the
// order of K. How the two products of a pair are rounded is the instructions' choice, so levels
// differ in the last bits.
#pragma once

#include <cstdint>

#include "matmul.h"

namespace talipot {

constexpr int kBf16Group = 2;

// MatmulKernel::prepare for kernels that compute in float32; an element is 2 floats.
void prepare_widened(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                     RowInfo* info);

extern const MatmulKernel kBf16Portable;
#if TALIPOT_X86
extern const MatmulKernel kBf16Avx2;
extern const MatmulKernel kBf16Avx512;
extern const MatmulKernel kBf16Avx512Dot;
#endif

}  // namespace talipot
