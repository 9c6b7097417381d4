// The inner loops of attention, for whatever vectors `V` is. To be included once in a file that has
// defined TALIPOT_TARGET, as matmul_tile.h is.
//
// A V has: Value, Limits (int32), Mask; kLanes, kKeys (of which scores are computed at a time) and
// kDims (elements of the values' mixture at a time); and zero, load, load_bf16, load_int8, store, broadcast,
// load_limits, add, subtract, multiply, divide, fma, max (the second where either is NaN), power
// (2^n of n + kRoundingShift), sees, select, fma_where.
#pragma once

#include <algorithm>
#include <cstring>

#include "attention.h"
#include "attention_tile.h"

namespace talipot {
namespace {

// Added to a float of magnitude below 2^22, it leaves the nearest integer in the low bits.
constexpr float kRoundingShift = 12582912.0f;  // 1.5 * 2^23
// Below every score, and finite, so that differences are never of two infinities.
constexpr float kNothing = -1e30f;

// 2^x for x <= 0, to 2e-9 before rounding; 0 below 2^-126. NaN stays NaN.
template <class V>
TALIPOT_TARGET TALIPOT_INLINE typename V::Value exp2(typename V::Value x) {
  x = V::max(V::broadcast(-127.0f), x);
  const typename V::Value shifted = V::add(x, V::broadcast(kRoundingShift));
  const typename V::Value rest = V::subtract(x, V::subtract(shifted, V::broadcast(kRoundingShift)));
  typename V::Value sum = V::broadcast(1.535336063e-4f);
  sum = V::fma(sum, rest, V::broadcast(1.339887487e-3f));
  sum = V::fma(sum, rest, V::broadcast(9.618437366e-3f));
  sum = V::fma(sum, rest, V::broadcast(5.550332470e-2f));
  sum = V::fma(sum, rest, V::broadcast(2.402264791e-1f));
  sum = V::fma(sum, rest, V::broadcast(6.931472029e-1f));
  sum = V::fma(sum, rest, V::broadcast(1.0f));
  return V::multiply(sum, V::power(shifted));
}

template <class V, int kVectors>
struct Lanes {
  using Value = typename V::Value;
  static constexpr int kCount = V::kLanes * kVectors;

  // bfloat16 rows as float32, side by side.
  TALIPOT_TARGET static void widen(const void* pool, const TileOffsets& offsets, int count,
                                   int64_t head_dim, float* to) {
    for (int i = 0; i < count; ++i, to += head_dim) {
      const uint16_t* from = static_cast<const uint16_t*>(pool) + offsets.of[i];
      int64_t h = 0;
      for (; h + V::kLanes <= head_dim; h += V::kLanes) V::store(to + h, V::load_bf16(from + h));
      for (; h < head_dim; ++h) {
        const uint32_t bits = static_cast<uint32_t>(from[h]) << 16;
        std::memcpy(to + h, &bits, sizeof bits);
      }
    }
  }

  // int8 rows as float32, side by side.
  TALIPOT_TARGET static void scale_up(const void* pool, const TileOffsets& offsets, int count,
                                      int64_t head_dim, float* to) {
    for (int i = 0; i < count; ++i, to += head_dim) {
      const int8_t* from = static_cast<const int8_t*>(pool) + offsets.of[i];
      float scale;
      std::memcpy(&scale, from + head_dim, sizeof scale);
      const Value factor = V::broadcast(scale);
      int64_t h = 0;
      for (; h + V::kLanes <= head_dim; h += V::kLanes) {
        V::store(to + h, V::multiply(V::load_int8(from + h), factor));
      }
      for (; h < head_dim; ++h) to[h] = static_cast<float>(from[h]) * scale;
    }
  }

  // float32 rows stay where they are.
  TALIPOT_TARGET static TileRows find_rows(const QueryBlock& block, const TileOffsets& offsets,
                                           int count) {
    const Pools& pools = *block.pools;
    const int64_t head_dim = pools.head_dim;
    TileRows rows;
    if (pools.format != PoolFormat::kFloat32) {
      const auto convert = pools.format == PoolFormat::kInt8 ? scale_up : widen;
      float* values = block.widened + kTileKeys * head_dim;
      convert(pools.keys, offsets, count, head_dim, block.widened);
      convert(pools.values, offsets, count, head_dim, values);
      for (int i = 0; i < count; ++i) {
        rows.keys[i] = block.widened + i * head_dim;
        rows.values[i] = values + i * head_dim;
      }
    } else {
      for (int i = 0; i < count; ++i) {
        rows.keys[i] = static_cast<const float*>(pools.keys) + offsets.of[i];
        rows.values[i] = static_cast<const float*>(pools.values) + offsets.of[i];
      }
    }
    for (int i = count; i < kTileKeys; ++i) {
      rows.keys[i] = rows.keys[count - 1];
      rows.values[i] = rows.values[count - 1];
    }
    return rows;
  }

  // Scores of V::kKeys keys.
  TALIPOT_TARGET TALIPOT_INLINE static void score(const float* query, int64_t head_dim,
                                                  const float* const* keys, const Ahead& ahead,
                                                  float* scores) {
    constexpr int64_t kDimsPerPrefetch = 8;
    Value sums[V::kKeys][kVectors];
    const float* rows[V::kKeys];
#pragma GCC unroll 16
    for (int key = 0; key < V::kKeys; ++key) {
      rows[key] = keys[key];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[key][v] = V::zero();
    }
    for (int64_t first = 0; first < head_dim; first += kDimsPerPrefetch) {
      ahead.template prefetch<V::kKeys>(first / kDimsPerPrefetch);
      const int64_t end = std::min(head_dim, first + kDimsPerPrefetch);
      for (int64_t h = first; h < end; ++h) {
        Value values[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) values[v] = V::load(query + v * V::kLanes);
        query += kCount;
#pragma GCC unroll 16
        for (int key = 0; key < V::kKeys; ++key) {
          const Value element = V::broadcast(rows[key][h]);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            sums[key][v] = V::fma(values[v], element, sums[key][v]);
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int key = 0; key < V::kKeys; ++key) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        V::store(scores + key * kCount + v * V::kLanes, sums[key][v]);
      }
    }
  }

  // Scores to weights, in place, for the lanes of one vector; returns what the softmax so far is
  // to be multiplied by.
  template <bool kMasked>
  TALIPOT_TARGET TALIPOT_INLINE static Value weigh(const QueryBlock& block, int64_t begin,
                                                   int count, int v, const Softmax& into) {
    float* scores = block.scores + v * V::kLanes;
    float* largest_at = into.largest + v * V::kLanes;
    float* sum_at = into.sum + v * V::kLanes;
    if constexpr (kMasked) {
      const auto limits = V::load_limits(block.limits + v * V::kLanes);
      for (int key = 0; key < count; ++key) {
        const auto seen = V::sees(limits, static_cast<int32_t>(begin + key));
        float* score = scores + key * kCount;
        V::store(score, V::select(seen, V::load(score), V::broadcast(-__builtin_inff())));
      }
    }
    const Value before = V::load(largest_at);
    Value largest = before;
    for (int key = 0; key < count; ++key) largest = V::max(largest, V::load(scores + key * kCount));
    V::store(largest_at, largest);
    Value sum = V::zero();
    for (int key = 0; key < count; ++key) {
      float* score = scores + key * kCount;
      const Value weight = exp2<V>(V::subtract(V::load(score), largest));
      V::store(score, weight);
      sum = V::add(sum, weight);
    }
    const Value factor = exp2<V>(V::subtract(before, largest));
    V::store(sum_at, V::fma(V::load(sum_at), factor, sum));
    return factor;
  }

  // kDims elements of the mixture: times factor, plus weights times values.
  template <bool kMasked, int kDims>
  TALIPOT_TARGET TALIPOT_INLINE static void mix(const QueryBlock& block, int64_t begin, int count,
                                                const float* const* values, int64_t dim,
                                                const Value* factor, float* mixed) {
    Value sums[kDims][kVectors];
    float* at = mixed + dim * kCount;
#pragma GCC unroll 16
    for (int d = 0; d < kDims; ++d) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sums[d][v] = V::multiply(V::load(at + d * kCount + v * V::kLanes), factor[v]);
      }
    }
    const float* weights = block.scores;
    for (int key = 0; key < count; ++key) {
      const float* row = values[key] + dim;
      // One register and displacements: the compiler would keep an index for each of the dims.
      asm("" : "+r"(row));
      Value weight[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) weight[v] = V::load(weights + v * V::kLanes);
      weights += kCount;
      if constexpr (kMasked) {
        // What a lane does not see may be anything, NaN too, which a weight of 0 would not stop.
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const auto limits = V::load_limits(block.limits + v * V::kLanes);
          const auto seen = V::sees(limits, static_cast<int32_t>(begin + key));
#pragma GCC unroll 16
          for (int d = 0; d < kDims; ++d) {
            sums[d][v] = V::fma_where(seen, weight[v], V::broadcast(row[d]), sums[d][v]);
          }
        }
      } else {
#pragma GCC unroll 16
        for (int d = 0; d < kDims; ++d) {
          const Value element = V::broadcast(row[d]);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            sums[d][v] = V::fma(weight[v], element, sums[d][v]);
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int d = 0; d < kDims; ++d) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        V::store(at + d * kCount + v * V::kLanes, sums[d][v]);
      }
    }
  }

  // What follows the scores of a tile: weights, and the mixture. kMasked where a lane does not see
  // all of it.
  template <bool kMasked>
  TALIPOT_TARGET static void finish_tile(const QueryBlock& block, int64_t begin, int count,
                                         const TileRows& rows, const Softmax& into) {
    Value factor[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) factor[v] = weigh<kMasked>(block, begin, count, v, into);
    const int64_t head_dim = block.pools->head_dim;
    int64_t dim = 0;
    for (; dim + V::kDims <= head_dim; dim += V::kDims) {
      mix<kMasked, V::kDims>(block, begin, count, rows.values, dim, factor, into.mixed);
    }
    for (; dim < head_dim; ++dim) {
      mix<kMasked, 1>(block, begin, count, rows.values, dim, factor, into.mixed);
    }
  }

  // AttentionKernel::attend.
  TALIPOT_TARGET static void attend(const QueryBlock& block, int64_t begin, int64_t end,
                                    const Softmax& into) {
    const int64_t head_dim = block.pools->head_dim;
    std::fill_n(into.largest, kCount, kNothing);
    std::fill_n(into.sum, kCount, 0.0f);
    std::fill_n(into.mixed, kCount * head_dim, 0.0f);
    TileOffsets offsets = find_offsets(block, begin, tile_size(begin, end));
    for (; begin < end; begin += kTileKeys) {
      const int count = tile_size(begin, end);
      const int next_count = tile_size(begin + kTileKeys, end);
      const TileOffsets next = find_offsets(block, begin + kTileKeys, next_count);
      const TileRows rows = find_rows(block, offsets, count);
      for (int key = 0; key < count; key += V::kKeys) {
        const Ahead ahead = look_ahead(block, key < next_count ? next.of[key] : offsets.of[key]);
        score(block.query, head_dim, rows.keys + key, ahead, block.scores + key * kCount);
      }
      if (begin + count - 1 > block.least_limit) {
        finish_tile<true>(block, begin, count, rows, into);
      } else {
        finish_tile<false>(block, begin, count, rows, into);
      }
      offsets = next;
    }
  }

  static int tile_size(int64_t begin, int64_t end) {
    return static_cast<int>(std::clamp<int64_t>(end - begin, 0, kTileKeys));
  }

  TALIPOT_TARGET static void merge(int64_t head_dim, const Softmax& into, const Softmax& segment) {
    for (int lane = 0; lane < kCount; lane += V::kLanes) {
      const Value before = V::load(into.largest + lane);
      const Value later = V::load(segment.largest + lane);
      const Value largest = V::max(before, later);
      const Value factor = exp2<V>(V::subtract(before, largest));
      const Value later_factor = exp2<V>(V::subtract(later, largest));
      V::store(into.largest + lane, largest);
      add(into.sum + lane, segment.sum + lane, factor, later_factor);
      for (int64_t h = 0; h < head_dim; ++h) {
        const int64_t at = h * kCount + lane;
        add(into.mixed + at, segment.mixed + at, factor, later_factor);
      }
    }
  }

  TALIPOT_TARGET TALIPOT_INLINE static void add(float* into, const float* later, Value factor,
                                                Value later_factor) {
    V::store(into, V::fma(V::load(into), factor, V::multiply(V::load(later), later_factor)));
  }

  TALIPOT_TARGET static void finish(int64_t head_dim, const Softmax& softmax) {
    for (int lane = 0; lane < kCount; lane += V::kLanes) {
      const Value sum = V::load(softmax.sum + lane);
      for (int64_t h = 0; h < head_dim; ++h) {
        float* at = softmax.mixed + h * kCount + lane;
        V::store(at, V::divide(V::load(at), sum));
      }
    }
    for (int lane = 0; lane < kCount; ++lane) {
      if (softmax.sum[lane] != 0.0f) continue;
      for (int64_t h = 0; h < head_dim; ++h) softmax.mixed[h * kCount + lane] = 0.0f;
    }
  }

  static constexpr AttentionKernel kernel() { return {kCount, attend, merge, finish}; }
};

}  // namespace
}  // namespace talipot
