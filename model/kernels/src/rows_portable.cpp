#define TALIPOT_TARGET
#include "rows_lanes.h"

namespace talipot {

const RowOps kRowsPortable = kOps;

const RowOps& row_ops(Isa isa) {
#if TALIPOT_X86
  const CpuFeatures& cpu = cpu_features();
  if (isa >= Isa::kAvx512 && cpu.avx512) return kRowsAvx512;
  if (isa >= Isa::kAvx2 && cpu.avx2) return kRowsAvx2;
#endif
  (void)isa;
  return kRowsPortable;
}

}  // namespace talipot
