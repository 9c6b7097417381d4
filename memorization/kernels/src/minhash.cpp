// MinHash: for each permutation x -> multiply * x + add (mod 2^32) the least value of each window.
//
// A permutation is a lane; 64 lanes, their constants and their minima stay in registers while a
// window's hashes pass by.
#include <algorithm>
#include <cstring>

#include "cpu.h"
#include "export.h"

namespace talipot {
namespace {

struct Windows {
  const uint32_t* hashes;    // of the text's shingles
  const int64_t* starts;     // [count] a window's first shingle
  int64_t count;
  int64_t members;           // shingles of each window
  const uint32_t* multiply;  // [num_perm]
  const uint32_t* add;       // [num_perm]
  int64_t num_perm;
  uint32_t* signatures;      // [count, num_perm]
};

constexpr int kLanes = 16;
using Lanes = uint32_t __attribute__((vector_size(4 * kLanes)));

template <int kVectors>
TALIPOT_INLINE void sign_lanes(const Windows& windows, int64_t first, int64_t lanes) {
  Lanes multiply[kVectors] = {}, add[kVectors] = {};
  std::memcpy(multiply, windows.multiply + first, 4 * lanes);
  std::memcpy(add, windows.add + first, 4 * lanes);
  for (int64_t window = 0; window < windows.count; ++window) {
    const uint32_t* hashes = windows.hashes + windows.starts[window];
    Lanes least[kVectors];
    for (Lanes& vector : least) vector = Lanes{} - 1;
    for (int64_t member = 0; member < windows.members; ++member) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        const Lanes value = hashes[member] * multiply[i] + add[i];
        least[i] = value < least[i] ? value : least[i];
      }
    }
    std::memcpy(windows.signatures + window * windows.num_perm + first, least, 4 * lanes);
  }
}

TALIPOT_INLINE void sign(const Windows& windows) {
  int64_t first = 0;
  for (; first + 4 * kLanes <= windows.num_perm; first += 4 * kLanes) {
    sign_lanes<4>(windows, first, 4 * kLanes);
  }
  for (; first < windows.num_perm; first += kLanes) {
    sign_lanes<1>(windows, first, std::min<int64_t>(kLanes, windows.num_perm - first));
  }
}

void sign_portable(const Windows& windows) { sign(windows); }
#if TALIPOT_X86
TALIPOT_AVX2 void sign_avx2(const Windows& windows) { sign(windows); }
TALIPOT_AVX512 void sign_avx512(const Windows& windows) { sign(windows); }
#endif

}  // namespace
}  // namespace talipot

TALIPOT_EXPORT void talipot_minhash(const uint32_t* hashes, const int64_t* starts, int64_t count,
                                    int64_t members, const uint32_t* multiply,
                                    const uint32_t* add, int64_t num_perm, uint32_t* signatures,
                                    int32_t isa) {
  using namespace talipot;
  const Windows windows{hashes, starts, count, members, multiply, add, num_perm, signatures};
  switch (std::min(static_cast<Isa>(isa), best_isa())) {
#if TALIPOT_X86
    case Isa::kAvx512:
      return sign_avx512(windows);
    case Isa::kAvx2:
      return sign_avx2(windows);
#endif
    default:
      return sign_portable(windows);
  }
}
