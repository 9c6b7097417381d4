// y[M, N] = x[M, K] times weights that were packed once.
//
// Weights are packed in panels of 64 columns. Within a panel, K is cut into groups of 1 (float32), 2
// (bfloat16) or 4 (int8) elements, and a group's 64 columns lie side by side, 4 bytes each: what the
// dot product instructions take. With few rows a tile is as wide as a panel, so that all the weights
// are one stream, which the hardware prefetches best if it is left alone. With more rows the
// registers hold the sums of half a panel, a strip.
//
// Every element of y is one sum in the order of K, whichever tile it is computed in. So a row's
// result has the same bits whatever M, the other rows and the number of threads are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu.h"
#include "parallel.h"

namespace talipot {

constexpr int kStripColumns = 32;
constexpr int kStripStepBytes = 128;
constexpr int kPanelColumns = 2 * kStripColumns;
constexpr int kPanelStepBytes = 2 * kStripStepBytes;

struct MatmulShape {
  int64_t rows;     // M
  int64_t inner;    // K
  int64_t columns;  // N, without the packing's padding
  int64_t groups;   // K in groups, rounded up
};

// What a kernel derives from a row of x beside its elements (int8 alone).
struct RowInfo {
  float scale;
  int32_t sum;
};

// A block of rows times a strip or a whole panel.
struct Tile {
  const void* block;          // prepared rows, [groups][rows]
  const RowInfo* info;        // [rows]
  const uint8_t* weights;     // the first step's
  int64_t groups;
  int64_t columns;            // how many of the tile's columns are y's
  const float* column_scale;  // [columns], or null
  float* y;                   // the tile's first element
  int64_t stride;             // from one row of y to the next
  const uint8_t* ahead;       // what to prefetch; null for nothing
  int64_t ahead_step;         // bytes of it with every group: 64 or 128
};

// One way to compute: instructions, and the blocking that suits their registers.
struct MatmulKernel {
  int group;          // elements of K in a group
  int element_bytes;  // of a prepared group of one row
  int max_rows;       // of a block
  int paired_rows;    // blocks of up to this many rows take both strips at once; may be 0
  // Rows x[rows, inner] into block [groups][rows].
  void (*prepare)(const float* x, int rows, int64_t inner, int64_t groups, void* block,
                  RowInfo* info);
  void (*multiply)(int rows, int strips, const Tile& tile);
};

const MatmulKernel& int8_kernel(Isa isa);
const MatmulKernel& bf16_kernel(Isa isa);
const MatmulKernel& f32_kernel(Isa isa);

// Rows cut into blocks whose sizes differ by one at most.
struct Blocks {
  int64_t rows;
  int64_t count;

  Blocks(int64_t rows, int64_t max_rows)
      : rows(rows), count((rows + max_rows - 1) / max_rows) {}
  int64_t begin(int64_t block) const {
    return block * (rows / count) + std::min(block, rows % count);
  }
  int size(int64_t block) const { return static_cast<int>(begin(block + 1) - begin(block)); }
};

// Rows as a kernel's `prepare` leaves them, block after block.
struct PreparedRows {
  uint8_t* elements;
  RowInfo* info;
};

// The second half of `matmul`: y of rows that are prepared; all sizes are at least 1.
void multiply_prepared(const MatmulKernel& kernel, const MatmulShape& shape, const Blocks& blocks,
                       const PreparedRows& prepared, const uint8_t* weights,
                       const float* column_scale, float* y, Workers& workers);

// column_scale is null but for int8.
void matmul(const MatmulKernel& kernel, const MatmulShape& shape, const float* x,
            const uint8_t* weights, const float* column_scale, float* y, Workers& workers);

}  // namespace talipot
