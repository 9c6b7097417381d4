// Writing new keys and values into pools of pages.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace talipot {

struct NewTokens {
  int64_t batch;
  int64_t tokens;       // T, of a row
  int64_t width;        // floats of a token: kv_heads * head_dim
  int64_t table_width;  // pages in a row of the table
};

struct PageLayout {
  int64_t num_pages;
  int64_t page_size;
  bool is_bf16;  // else float32
};

// Token t of row b goes to position start[b] + t; one whose page the table does not have goes
// nowhere. values is [batch, tokens, width].
void write_pages(const NewTokens& shape, const PageLayout& layout, const float* values,
                 const int32_t* table, const int32_t* start, void* pool, Workers& workers);

}  // namespace talipot
