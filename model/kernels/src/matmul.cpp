#include "matmul.h"

#include <algorithm>

#include "scratch.h"

namespace talipot {
namespace {

// Below this much work a second thread costs more than it gives.
constexpr int64_t kMinTaskSteps = 1 << 8;  // of 256 bytes of weights: 64 KiB
constexpr int64_t kMinPreparedElements = 1 << 14;
// Tasks per thread: enough that a thread which the system delays does not delay the call.
constexpr int64_t kTasksPerThread = 4;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

void prepare_rows(const MatmulKernel& kernel, const MatmulShape& shape, const Blocks& blocks,
                  const float* x, const PreparedRows& out, Workers& workers) {
  const int64_t row_bytes = shape.groups * kernel.element_bytes;
  const auto prepare = [&](int64_t block) {
    const int64_t begin = blocks.begin(block);
    kernel.prepare(x + begin * shape.inner, blocks.size(block), shape.inner, shape.groups,
                   out.elements + begin * row_bytes, out.info + begin);
  };
  const int64_t blocks_per_task =
      divide_up(kMinPreparedElements * blocks.count, shape.rows * shape.inner);
  const int64_t tasks = divide_up(blocks.count, blocks_per_task);
  parallel_for(workers, tasks, [&](int64_t task) {
    const int64_t end = std::min(blocks.count, (task + 1) * blocks_per_task);
    for (int64_t block = task * blocks_per_task; block < end; ++block) prepare(block);
  });
}

// Columns are split first. Rows only where there are more threads than panels to give them.
struct Split {
  int64_t panels_per_task;
  int64_t panel_tasks;
  int64_t blocks_per_task;
  int64_t block_tasks;

  Split(const MatmulShape& shape, const Blocks& blocks, int64_t panels, int64_t threads) {
    const int64_t least = divide_up(kMinTaskSteps, shape.groups * blocks.count);
    panels_per_task = std::max(panels / (threads * kTasksPerThread), least);
    panel_tasks = divide_up(panels, panels_per_task);
    const int64_t parts = std::min(blocks.count, threads / panel_tasks);
    blocks_per_task = divide_up(blocks.count, std::max<int64_t>(parts, 1));
    block_tasks = divide_up(blocks.count, blocks_per_task);
  }
};

// Several blocks of rows compute with one panel while memory would be idle: each asks for a part of
// the next panel, in the order in which it lies. One block alone is best served by the hardware's
// prefetchers.
struct Ahead {
  static constexpr int64_t kLine = 64;
  // Two panels are to fit in the second level of cache.
  static constexpr size_t kMaxPanelBytes = 384 << 10;

  int64_t step;          // bytes that a block asks for with every group
  int64_t blocks;        // how many blocks ask; 0 for none
  int64_t block_bytes;   // that a block asks for

  Ahead(size_t panel_bytes, int64_t block_count, int64_t strips) {
    const bool is_used = block_count > 1 && strips == 2 && panel_bytes <= kMaxPanelBytes;
    step = block_count < kPanelStepBytes / kLine ? 2 * kLine : kLine;
    blocks = is_used ? kPanelStepBytes / step : 0;
    block_bytes = static_cast<int64_t>(panel_bytes) / kPanelStepBytes * step;
  }

  const uint8_t* during(int64_t block, const uint8_t* next_panel) const {
    return block < blocks ? next_panel + block * block_bytes : nullptr;
  }
};

}  // namespace

void multiply_prepared(const MatmulKernel& kernel, const MatmulShape& shape, const Blocks& blocks,
                       const PreparedRows& prepared, const uint8_t* weights,
                       const float* column_scale, float* y, Workers& workers) {
  const int64_t row_bytes = shape.groups * kernel.element_bytes;
  const int64_t panels = divide_up(shape.columns, kPanelColumns);
  const size_t panel_bytes = static_cast<size_t>(shape.groups) * kPanelStepBytes;
  const Split split(shape, blocks, panels, workers.threads());
  const int64_t strips = blocks.size(0) <= kernel.paired_rows ? 2 : 1;
  const Ahead ahead(panel_bytes, blocks.count, strips);
  const auto multiply = [&](int64_t panel, int64_t strip, int64_t block, bool is_last_panel) {
    const int64_t row = blocks.begin(block);
    const int64_t column = panel * kPanelColumns + strip * kStripColumns;
    if (column >= shape.columns) return;
    const uint8_t* panel_weights = weights + panel * panel_bytes;
    const Tile tile{
        prepared.elements + row * row_bytes,
        prepared.info + row,
        panel_weights + strip * kStripStepBytes,
        shape.groups,
        std::min(shape.columns - column, strips * kStripColumns),
        column_scale == nullptr ? nullptr : column_scale + column,
        y + row * shape.columns + column,
        shape.columns,
        is_last_panel ? nullptr : ahead.during(block, panel_weights + panel_bytes),
        ahead.step,
    };
    kernel.multiply(blocks.size(block), static_cast<int>(strips), tile);
  };
  // Blocks of rows inside, so that weights come from memory once and then from the cache.
  parallel_for(workers, split.panel_tasks * split.block_tasks, [&](int64_t task) {
    const int64_t first_block = task % split.block_tasks * split.blocks_per_task;
    const int64_t last_block = std::min(blocks.count, first_block + split.blocks_per_task);
    const int64_t first_panel = task / split.block_tasks * split.panels_per_task;
    const int64_t last_panel = std::min(panels, first_panel + split.panels_per_task);
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      for (int64_t strip = 0; strip < 2; strip += strips) {
        for (int64_t block = first_block; block < last_block; ++block) {
          multiply(panel, strip, block, panel + 1 == last_panel);
        }
      }
    }
  });
}

void matmul(const MatmulKernel& kernel, const MatmulShape& shape, const float* x,
            const uint8_t* weights, const float* column_scale, float* y, Workers& workers) {
  if (shape.rows == 0 || shape.columns == 0) return;
  if (shape.inner == 0) {
    std::fill_n(y, shape.rows * shape.columns, 0.0f);
    return;
  }
  const Blocks blocks(shape.rows, kernel.max_rows);
  const int64_t row_bytes = shape.groups * kernel.element_bytes;
  static thread_local Scratch element_scratch, info_scratch;
  const PreparedRows prepared{element_scratch.reserve<uint8_t>(shape.rows * row_bytes),
                          info_scratch.reserve<RowInfo>(shape.rows)};
  prepare_rows(kernel, shape, blocks, x, prepared, workers);
  multiply_prepared(kernel, shape, blocks, prepared, weights, column_scale, y, workers);
}

}  // namespace talipot
