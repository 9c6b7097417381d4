#include "cpu.h"

#include "export.h"

namespace talipot {

Isa best_isa() {
#if TALIPOT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

}  // namespace talipot

TALIPOT_EXPORT int32_t talipot_best_isa() { return static_cast<int32_t>(talipot::best_isa()); }
