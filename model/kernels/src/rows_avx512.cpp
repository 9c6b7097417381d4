#include "cpu.h"

#if TALIPOT_X86

#define TALIPOT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#include "rows_lanes.h"

namespace talipot {

const RowOps kRowsAvx512 = kOps;

}  // namespace talipot

#endif
