// A tile's keys and values: where they lie, and fetching them in time.
#pragma once

#include "attention.h"

namespace talipot {

// Where a tile's keys and values lie in their pools, in elements.
struct TileOffsets {
  int64_t of[kTileKeys];
};

// The same as float32 addresses. Those beyond the tile's end repeat the last, so that loops over
// several keys at a time may run past it.
struct TileRows {
  const float* keys[kTileKeys];
  const float* values[kTileKeys];
};

inline TileOffsets find_offsets(const QueryBlock& block, int64_t begin, int count) {
  const Pools& pools = *block.pools;
  TileOffsets offsets;
  int64_t page = begin / pools.page_size;
  int64_t slot = begin % pools.page_size;
  const int64_t row = pool_row_elements(pools.format, pools.head_dim);
  for (int i = 0; i < count; ++i) {
    const int64_t token = block.table[page] * pools.page_size + slot;
    offsets.of[i] = (token * pools.kv_heads + block.kv_head) * row;
    if (++slot == pools.page_size) {
      slot = 0;
      ++page;
    }
  }
  return offsets;
}

// Rows of keys and values to ask memory for while others are computed with: a page is a new place,
// of which the hardware's prefetchers learn too late, and a burst of requests would wait for
// itself. Into the second level: the first is full of the tile at hand.
struct Ahead {
  const char* keys;
  const char* values;
  int64_t stride;     // bytes, from a row to the next of the same page
  int64_t row_bytes;

  // The part-th of the lines of kRows rows; parts beyond the last do nothing. An address past the
  // end of a page is harmless.
  template <int kRows>
  TALIPOT_INLINE void prefetch(int64_t part) const {
    constexpr int64_t kLine = 64;
    const int64_t at = part / 2 * kLine;
    if (at >= row_bytes) return;
    const char* row = (part % 2 == 0 ? keys : values) + at;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i, row += stride) __builtin_prefetch(row, 0, 2);
  }
};

inline Ahead look_ahead(const QueryBlock& block, int64_t offset) {
  const Pools& pools = *block.pools;
  const int64_t element = pool_element_bytes(pools.format);
  const int64_t row_bytes = pool_row_elements(pools.format, pools.head_dim) * element;
  return {static_cast<const char*>(pools.keys) + offset * element,
          static_cast<const char*>(pools.values) + offset * element,
          pools.kv_heads * row_bytes, row_bytes};
}

}  // namespace talipot
