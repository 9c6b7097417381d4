#include "pages.h"

#include <algorithm>
#include <cstring>

#include "bfloat16.h"
#include "int8.h"

namespace talipot {
namespace {

constexpr int64_t kFloatsPerTask = 1 << 15;

void narrow(const float* from, int64_t count, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint16_t>(bf16_bits(from[i]) >> 16);
}

// One head of one token. The magnitudes are below 2^22, so a sum with the shift rounds them.
void quantize(const float* from, int64_t count, int8_t* to) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof bits);
    largest = std::max(largest, bits & 0x7fffffff);
  }
  const RowScale scale = row_scale(largest);
  if (scale.inverse == 0.0f) {
    std::memset(to, 0, count);
  } else {
    for (int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<int8_t>(from[i] * scale.inverse + kShift - kShift);
    }
  }
  std::memcpy(to + count, &scale.scale, sizeof scale.scale);
}

// All heads of one token into slot `slot` of a pool.
void store(const NewTokens& shape, PoolFormat format, const float* from, int64_t slot,
           void* pool) {
  const int64_t width = shape.kv_heads * shape.head_dim;
  if (format == PoolFormat::kBf16) {
    narrow(from, width, static_cast<uint16_t*>(pool) + slot * width);
  } else if (format == PoolFormat::kFloat32) {
    std::memcpy(static_cast<float*>(pool) + slot * width, from, width * sizeof(float));
  } else {
    const int64_t row = pool_row_elements(format, shape.head_dim);
    auto* to = static_cast<int8_t*>(pool) + slot * shape.kv_heads * row;
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      quantize(from + head * shape.head_dim, shape.head_dim, to + head * row);
    }
  }
}

}  // namespace

void write_token(const NewTokens& shape, const PageLayout& layout, const float* values,
                 int64_t token, const int32_t* table, const int32_t* start, void* pool) {
  const int64_t row = token / shape.tokens;
  const int64_t position = start[row] + token % shape.tokens;
  const int64_t index = position / layout.page_size;
  if (position < 0 || index >= shape.table_width) return;
  const int64_t page = table[row * shape.table_width + index];
  if (page < 0 || page >= layout.num_pages) return;
  const int64_t slot = page * layout.page_size + position % layout.page_size;
  store(shape, layout.format, values, slot, pool);
}

void write_pages(const NewTokens& shape, const PageLayout& layout, const float* values,
                 const int32_t* table, const int32_t* start, void* pool, Workers& workers) {
  const int64_t width = shape.kv_heads * shape.head_dim;
  const int64_t tokens = shape.batch * shape.tokens;
  const int64_t per_task = std::max<int64_t>(kFloatsPerTask / std::max<int64_t>(width, 1), 1);
  parallel_for(workers, (tokens + per_task - 1) / per_task, [&](int64_t task) {
    const int64_t end = std::min(tokens, (task + 1) * per_task);
    for (int64_t token = task * per_task; token < end; ++token) {
      write_token(shape, layout, values + token * width, token, table, start, pool);
    }
  });
}

}  // namespace talipot
