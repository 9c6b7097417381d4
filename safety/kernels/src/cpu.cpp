#include "cpu.h"

namespace talipot {

Isa best_isa() {
#if TALIPOT_X86
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && __builtin_cpu_supports("avx512f")) return Isa::kAvx512;
  if (has_avx2) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

}  // namespace talipot

TALIPOT_EXPORT int32_t talipot_best_isa() { return static_cast<int32_t>(talipot::best_isa()); }

// Which sources the library was built from; library.py compares it with those beside it.
TALIPOT_EXPORT const char* talipot_sources() { return TALIPOT_SOURCES; }
