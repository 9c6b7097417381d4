// Writing new keys and values into pools of pages.
#pragma once

#include <cstdint>

#include "parallel.h"
#include "pool_format.h"

namespace talipot {

struct NewTokens {
  int64_t batch;
  int64_t tokens;       // T, of a row
  int64_t kv_heads;
  int64_t head_dim;
  int64_t table_width;  // pages in a row of the table
};

struct PageLayout {
  int64_t num_pages;
  int64_t page_size;
  PoolFormat format;
};

// Token `token` of all the rows' tokens, from [kv_heads, head_dim]; as `write_pages` for one.
void write_token(const NewTokens& shape, const PageLayout& layout, const float* values,
                 int64_t token, const int32_t* table, const int32_t* start, void* pool);

// Token t of row b goes to position start[b] + t; one whose page the table does not have goes
// nowhere. values is [batch, tokens, kv_heads, head_dim]. An int8 head is q = round(x * (127 /
// absmax)), as int8.h has it for a row: with an infinity or a NaN in it, all of it becomes NaN.
void write_pages(const NewTokens& shape, const PageLayout& layout, const float* values,
                 const int32_t* table, const int32_t* start, void* pool, Workers& workers);

}  // namespace talipot
