// The register-blocked inner loop, for whatever vectors `Op` works on. To be included once in a
// file that has defined TALIPOT_TARGET, the function attribute that allows Op's instructions: one
// build serves every CPU, so no file is compiled for more than the baseline.
//
// An Op has: Acc, Weights, Row; kVectors, vectors in a strip's step; kLanes, columns in a vector;
// kElementBytes, of a prepared group of one row; kWeightsInRegisters, whether a whole step's
// weights fit in registers beside the sums; kAheadBytes, how far ahead a whole panel's weights are
// asked for, 0 to leave it to the hardware; and zero, load, broadcast, step, store.
#pragma once

#include <array>
#include <utility>

#include "matmul.h"

namespace talipot {
namespace {

constexpr int64_t kLine = 64;

template <class Op, int kRows, int kStrips>
TALIPOT_TARGET void multiply_tile(const Tile& tile) {
  constexpr int kVectors = kStrips * Op::kVectors;
  constexpr int kVectorBytes = kStripStepBytes / Op::kVectors;
  // The hardware stops at the end of a memory page. With one row it is the faster all the same.
  constexpr bool kAsksAhead = Op::kAheadBytes > 0 && kStrips == 2 && kRows > 1;
  typename Op::Acc sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
    for (int vector = 0; vector < kVectors; ++vector) sums[row][vector] = Op::zero();
  }
  const auto* block = static_cast<const uint8_t*>(tile.block);
  const uint8_t* weights = tile.weights;
  const uint8_t* ahead = tile.ahead;
  for (int64_t group = 0; group < tile.groups; ++group) {
    if (ahead != nullptr) {
      __builtin_prefetch(ahead, 0, 2);
      if (tile.ahead_step > kLine) __builtin_prefetch(ahead + kLine, 0, 2);
      ahead += tile.ahead_step;
    }
    if constexpr (kAsksAhead) {
#pragma GCC unroll 16
      for (int64_t byte = 0; byte < kPanelStepBytes; byte += kLine) {
        __builtin_prefetch(weights + Op::kAheadBytes + byte);
      }
    }
    if constexpr (Op::kWeightsInRegisters) {
      typename Op::Weights loaded[kVectors];
#pragma GCC unroll 16
      for (int vector = 0; vector < kVectors; ++vector) {
        loaded[vector] = Op::load(weights + vector * kVectorBytes);
      }
#pragma GCC unroll 16
      for (int row = 0; row < kRows; ++row) {
        const typename Op::Row value = Op::broadcast(block + row * Op::kElementBytes);
#pragma GCC unroll 16
        for (int vector = 0; vector < kVectors; ++vector) {
          sums[row][vector] = Op::step(sums[row][vector], loaded[vector], value);
        }
      }
    } else {
#pragma GCC unroll 16
      for (int vector = 0; vector < kVectors; ++vector) {
        const typename Op::Weights loaded = Op::load(weights + vector * kVectorBytes);
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
          sums[row][vector] = Op::step(sums[row][vector], loaded,
                                       Op::broadcast(block + row * Op::kElementBytes));
        }
      }
    }
    block += kRows * Op::kElementBytes;
    weights += kPanelStepBytes;
  }
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
    for (int vector = 0; vector < kVectors; ++vector) {
      Op::store(sums[row][vector], tile, row, vector * Op::kLanes);
    }
  }
}

using TileFunction = void (*)(const Tile&);

template <class Op, int kStrips, int... kRows>
constexpr std::array<TileFunction, sizeof...(kRows)> tiles(std::integer_sequence<int, kRows...>) {
  return {&multiply_tile<Op, kRows + 1, kStrips>...};
}

// MatmulKernel::multiply for an Op with these two limits.
template <class Op, int kMaxRows, int kPairedRows>
void multiply_with(int rows, int strips, const Tile& tile) {
  static constexpr auto single = tiles<Op, 1>(std::make_integer_sequence<int, kMaxRows>());
  static constexpr auto paired = tiles<Op, 2>(std::make_integer_sequence<int, kPairedRows>());
  if (strips == 1) {
    single[rows - 1](tile);
  } else {
    paired[rows - 1](tile);
  }
}

}  // namespace
}  // namespace talipot
