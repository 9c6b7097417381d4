#include "pages.h"

#include <algorithm>
#include <cstring>

#include "bfloat16.h"

namespace talipot {
namespace {

constexpr int64_t kFloatsPerTask = 1 << 15;

void narrow(const float* from, int64_t count, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint16_t>(bf16_bits(from[i]) >> 16);
}

}  // namespace

void write_pages(const NewTokens& shape, const PageLayout& layout, const float* values,
                 const int32_t* table, const int32_t* start, void* pool, Workers& workers) {
  const auto write = [&](int64_t token) {
    const int64_t row = token / shape.tokens;
    const int64_t position = start[row] + token % shape.tokens;
    const int64_t index = position / layout.page_size;
    if (position < 0 || index >= shape.table_width) return;
    const int64_t page = table[row * shape.table_width + index];
    if (page < 0 || page >= layout.num_pages) return;
    const int64_t slot = page * layout.page_size + position % layout.page_size;
    const float* from = values + token * shape.width;
    if (layout.is_bf16) {
      narrow(from, shape.width, static_cast<uint16_t*>(pool) + slot * shape.width);
    } else {
      std::memcpy(static_cast<float*>(pool) + slot * shape.width, from,
                  shape.width * sizeof(float));
    }
  };
  const int64_t tokens = shape.batch * shape.tokens;
  const int64_t per_task = std::max<int64_t>(kFloatsPerTask / std::max<int64_t>(shape.width, 1), 1);
  parallel_for(workers, (tokens + per_task - 1) / per_task, [&](int64_t task) {
    const int64_t end = std::min(tokens, (task + 1) * per_task);
    for (int64_t token = task * per_task; token < end; ++token) write(token);
  });
}

}  // namespace talipot
