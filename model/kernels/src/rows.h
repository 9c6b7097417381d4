// What a block does to one row between its products: norm, rotation, activation.
//
// Every level of instructions gives the same bits: all are single IEEE operations in the same
// order, 16 lanes wide, and nothing is contracted.
#pragma once

#include <cstdint>

#include "cpu.h"

namespace talipot {

struct RowOps {
  // out = (x - mean) / sqrt(variance + eps) * scale + bias; bias may be null, out may be x.
  void (*norm)(const float* x, int64_t count, const float* scale, const float* bias, float eps,
               float* out);
  // x += y
  void (*add)(float* x, const float* y, int64_t count);
  // A head's pairs, (2i, 2i + 1) or (i, i + count / 2) with `halves`, by the angles of turn, which
  // is [2][count]: an element's cosine, and the sine that its partner is multiplied by, negative
  // for the first of a pair. Then times factor.
  void (*rotate)(float* head, int64_t count, const float* turn, bool halves, float factor);
  // out = f(gate) * up, or f(gate) where up is null; f is silu, or with `gelu` the exact gelu.
  void (*activate)(const float* gate, const float* up, int64_t count, bool gelu, float* out);
};

const RowOps& row_ops(Isa isa);
extern const RowOps kRowsPortable;
#if TALIPOT_X86
extern const RowOps kRowsAvx2;
extern const RowOps kRowsAvx512;
#endif

}  // namespace talipot
