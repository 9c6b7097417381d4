// The float32 product: weights and x as they are, summed in the order of K. Where the level has it
// a product and its sum are rounded once, so levels differ in the last bits.
#pragma once

#include "matmul.h"

namespace talipot {

constexpr int kF32Group = 1;

// MatmulKernel::prepare at every level; an element is a float.
void prepare_f32(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                 RowInfo* info);

extern const MatmulKernel kF32Portable;
#if TALIPOT_X86
extern const MatmulKernel kF32Avx2;
extern const MatmulKernel kF32Avx512;
#endif

}  // namespace talipot
