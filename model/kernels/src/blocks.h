// All of a model's parallel blocks (PaLM, section 2) in one call: between two products there is
// nothing but rows, and threads that would have to be woken.
//
// A row's result has the same bits whatever the other rows, their number and the number of threads
// are: every part of it says so.
#pragma once

#include <cstdint>
#include <vector>

#include "attention.h"
#include "cpu.h"
#include "matmul.h"
#include "pages.h"
#include "parallel.h"

namespace talipot {

struct BlocksShape {
  int64_t batch;
  int64_t tokens;  // of a row
  int64_t d_model;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t d_ff;
  int64_t table_width;  // pages in a row of the table
  int64_t positions;    // that there are angles for
  bool is_gated;
  bool is_gelu;
  bool has_half_pairs;  // else neighbours are rotated
  float norm_eps;

  int64_t rows() const { return batch * tokens; }
  int64_t attended() const { return heads * head_dim; }
  int64_t key_values() const { return kv_heads * head_dim; }
  // Columns of the product into a block, and the width of the one out of it.
  int64_t into() const { return attended() + 2 * key_values() + (is_gated ? 2 : 1) * d_ff; }
  int64_t out() const { return attended() + d_ff; }
};

// A norm's weights; bias may be null, and so may both of a norm that is not there.
struct NormWeights {
  const float* scale;
  const float* bias;
};

struct PackedWeights {
  const uint8_t* packed;
  const float* scale;  // null but for int8
};

struct Block {
  NormWeights norm;
  const float* query_norm;  // [heads, head_dim], or null
  const float* key_norm;    // [kv_heads, head_dim], or null
  PackedWeights into;
  PackedWeights out;
  void* keys;  // pools
  void* values;
};

// hidden [rows, d_model] goes through all blocks and the last norm, in place. turns is [positions,
// 2, head_dim], as RowOps::rotate takes it; table and start as in `paged_attention`.
void run_blocks(const BlocksShape& shape, const MatmulKernel& kernel, Isa isa,
                const PageLayout& layout, const std::vector<Block>& blocks,
                const NormWeights& last_norm, const float* turns, const int32_t* table,
                const int32_t* start, float* hidden, Workers& workers);

}  // namespace talipot
