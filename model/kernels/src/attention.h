// Attention over keys and values that lie in pages, read where they are.
//
// Query rows (tokens times the query heads of one key/value head) are the lanes of a vector, and an
// element of a key or value is broadcast to all of them: nothing is transposed or summed across
// lanes, and a lane's arithmetic is the same whatever stands in the others.
//
// Keys are taken in tiles of 32 and segments of 512, both counted from position 0. A segment's
// softmax is accumulated alone and merged with those before it, in order. So a row's result has the
// same bits whether its segments were shared between threads or not, and whatever the batch, the
// table's width and the tokens that share its call are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu.h"
#include "parallel.h"
#include "pool_format.h"

namespace talipot {

constexpr int kTileKeys = 32;
constexpr int64_t kSegmentKeys = 512;

// Pools of pages, [num_pages, page_size, kv_heads, head_dim] as the format keeps them, for keys and
// for values.
struct Pools {
  const void* keys;
  const void* values;
  PoolFormat format;
  int64_t num_pages;
  int64_t page_size;
  int64_t kv_heads;
  int64_t head_dim;
};

struct AttentionShape {
  int64_t batch;
  int64_t tokens;       // T, of a row
  int64_t heads;        // N
  int64_t table_width;  // pages in a row of the table
  int64_t query_stride;  // floats from a token's queries to the next token's
  int64_t y_stride;      // the same of y
};

// Query rows that share a key/value head, in as many lanes as the kernel has.
struct QueryBlock {
  const float* query;     // [head_dim][lanes], times log2(e)
  const int32_t* limits;  // [lanes], the last position that a lane sees
  int32_t least_limit;
  const int32_t* table;  // of the row, with a page for every position up to the largest limit
  int64_t kv_head;
  const Pools* pools;
  float* scores;   // scratch, [kTileKeys][lanes]
  float* widened;  // scratch, [2][kTileKeys][head_dim]; not for float32
};

// An unfinished softmax: exp2(score - largest) summed, and summed times the values.
struct Softmax {
  float* largest;  // [lanes]
  float* sum;      // [lanes]
  float* mixed;    // [head_dim][lanes]
};

struct AttentionKernel {
  int lanes;
  // The positions begin <= position < end into a new softmax; end - begin is 1 at least.
  void (*attend)(const QueryBlock& block, int64_t begin, int64_t end, const Softmax& into);
  // Adds a later segment.
  void (*merge)(int64_t head_dim, const Softmax& into, const Softmax& segment);
  // mixed /= sum, or 0 where a lane saw nothing.
  void (*finish)(int64_t head_dim, const Softmax& softmax);
};

// The kernel for so many query rows of a key/value head.
const AttentionKernel& attention_kernel(Isa isa, int64_t rows);
const AttentionKernel& attention_kernel_portable(int64_t rows);
#if TALIPOT_X86
const AttentionKernel& attention_kernel_avx2(int64_t rows);
const AttentionKernel& attention_kernel_avx512(int64_t rows);
#endif

// query and y are [batch, tokens, heads, head_dim], a token's part without gaps; table is [batch, table_width]; token t of row b
// stands at start[b] + t. A row sees the positions up to its own, and none from its first page that
// the table does not have; a row that sees nothing is 0.
void paged_attention(const AttentionShape& shape, const Pools& pools, const float* query,
                     const int32_t* table, const int32_t* start, float* y, Isa isa,
                     Workers& workers);

}  // namespace talipot
