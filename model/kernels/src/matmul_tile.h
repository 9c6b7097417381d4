// The register-blocked inner loop, for whatever vectors `Op` works on. To be included once in a
// file that has defined TALIPOT_TARGET, the function attribute that allows Op's instructions: one
// build serves every CPU, so no file is compiled for more than the baseline.
//
// An Op has: Acc, Weights, Row; kVectors, vectors in a 128-byte step; kLanes, columns in a vector;
// kElementBytes, of a prepared group of one row; kWeightsInRegisters, whether a whole step's
// weights fit in registers beside the sums; and zero, load, broadcast, step, store.
#pragma once

#include <array>
#include <utility>

#include "matmul.h"

namespace talipot {
namespace {

// The hardware's prefetchers stop at the end of a page; this reaches over it.
constexpr int kPrefetchBytes = 2048;

template <class Op, int kRows, int kPanels>
TALIPOT_TARGET void multiply_tile(const Tile& tile) {
  constexpr int kVectors = kPanels * Op::kVectors;
  constexpr int kVectorBytes = kPanelStepBytes / Op::kVectors;
  typename Op::Acc sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
    for (int vector = 0; vector < kVectors; ++vector) sums[row][vector] = Op::zero();
  }
  const auto* block = static_cast<const uint8_t*>(tile.block);
  const uint8_t* weights = tile.weights;
  const uint8_t* next_panel = tile.weights + tile.panel_bytes;
  for (int64_t group = 0; group < tile.groups; ++group) {
    const auto address = [&](int vector) __attribute__((always_inline)) {
      const uint8_t* panel = vector < Op::kVectors ? weights : next_panel;
      return panel + vector % Op::kVectors * kVectorBytes;
    };
    __builtin_prefetch(weights + kPrefetchBytes);
    __builtin_prefetch(weights + kPrefetchBytes + 64);
    if constexpr (kPanels == 2) {
      __builtin_prefetch(next_panel + kPrefetchBytes);
      __builtin_prefetch(next_panel + kPrefetchBytes + 64);
    }
    if constexpr (Op::kWeightsInRegisters) {
      typename Op::Weights loaded[kVectors];
#pragma GCC unroll 16
      for (int vector = 0; vector < kVectors; ++vector) loaded[vector] = Op::load(address(vector));
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
        const typename Op::Weights loaded = Op::load(address(vector));
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
          sums[row][vector] = Op::step(sums[row][vector], loaded,
                                       Op::broadcast(block + row * Op::kElementBytes));
        }
      }
    }
    block += kRows * Op::kElementBytes;
    weights += kPanelStepBytes;
    next_panel += kPanelStepBytes;
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

template <class Op, int kPanels, int... kRows>
constexpr std::array<TileFunction, sizeof...(kRows)> tiles(std::integer_sequence<int, kRows...>) {
  return {&multiply_tile<Op, kRows + 1, kPanels>...};
}

// MatmulKernel::multiply for an Op with these two limits.
template <class Op, int kMaxRows, int kPairedRows>
void multiply_with(int rows, int panels, const Tile& tile) {
  static constexpr auto single = tiles<Op, 1>(std::make_integer_sequence<int, kMaxRows>());
  static constexpr auto paired = tiles<Op, 2>(std::make_integer_sequence<int, kPairedRows>());
  if (panels == 1) {
    single[rows - 1](tile);
  } else {
    paired[rows - 1](tile);
  }
}

}  // namespace
}  // namespace talipot
