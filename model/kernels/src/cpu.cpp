#include "cpu.h"

namespace talipot {
namespace {

CpuFeatures detect() {
  CpuFeatures found;
#if TALIPOT_X86
  __builtin_cpu_init();
  found.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  found.avx512 = found.avx2 && __builtin_cpu_supports("avx512f") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
  found.vnni = found.avx512 && __builtin_cpu_supports("avx512vnni");
  found.bf16 = found.avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return found;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures found = detect();
  return found;
}

Isa best_isa() {
  const CpuFeatures& cpu = cpu_features();
  if (cpu.vnni || cpu.bf16) return Isa::kAvx512Dot;
  if (cpu.avx512) return Isa::kAvx512;
  return cpu.avx2 ? Isa::kAvx2 : Isa::kPortable;
}

}  // namespace talipot
