#include "cpu.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx2,fma")))
#include "rows_lanes.h"

namespace talipot {

const RowOps kRowsAvx2 = kOps;

}  // namespace talipot

#endif
