#include "blocks.h"

#include <algorithm>
#include <cmath>

#include "rows.h"
#include "scratch.h"

namespace talipot {
namespace {

// Floats of rows below which a task is not worth handing over.
constexpr int64_t kFloatsPerTask = 1 << 11;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

class BlocksRun {
 public:
  BlocksRun(const BlocksShape& shape, const MatmulKernel& kernel, Isa isa,
            const PageLayout& layout, const float* turns, const int32_t* table,
            const int32_t* start, float* hidden, Workers& workers)
      : shape_(shape),
        kernel_(kernel),
        isa_(isa),
        ops_(row_ops(isa)),
        layout_(layout),
        turns_(turns),
        table_(table),
        start_(start),
        hidden_(hidden),
        workers_(workers),
        cut_(shape.rows(), kernel.max_rows),
        into_{shape.rows(), shape.d_model, shape.into(), divide_up(shape.d_model, kernel.group)},
        out_{shape.rows(), shape.out(), shape.d_model, divide_up(shape.out(), kernel.group)} {
    static thread_local Scratch elements, info, projected, joined, added;
    const int64_t rows = shape.rows();
    prepared_ = {elements.reserve<uint8_t>(rows * std::max(into_.groups, out_.groups) *
                                           kernel.element_bytes),
                 info.reserve<RowInfo>(rows)};
    projected_ = projected.reserve<float>(rows * shape.into());
    joined_ = joined.reserve<float>(rows * shape.out());
    added_ = added.reserve<float>(rows * shape.d_model);
  }

  void step(const Block& block, bool is_first) {
    for_row_blocks(shape_.d_model, [&](int64_t cut) { enter(block, cut, is_first); });
    multiply_prepared(kernel_, into_, cut_, prepared_, block.into.packed, block.into.scale,
                      projected_, workers_);
    const int64_t width = shape_.attended() + 2 * shape_.key_values();
    for_tasks(shape_.rows(), width, [&](int64_t row) { place(block, row); });
    attend(block);
    for_row_blocks(shape_.into(), [&](int64_t cut) { leave(cut); });
    multiply_prepared(kernel_, out_, cut_, prepared_, block.out.packed, block.out.scale, added_,
                      workers_);
  }

  void finish(const NormWeights& norm, bool has_blocks) {
    for_tasks(shape_.rows(), shape_.d_model, [&](int64_t row) {
      float* x = hidden_ + row * shape_.d_model;
      if (has_blocks) ops_.add(x, added_ + row * shape_.d_model, shape_.d_model);
      ops_.norm(x, shape_.d_model, norm.scale, norm.bias, shape_.norm_eps, x);
    });
  }

 private:
  template <typename Body>
  void for_tasks(int64_t count, int64_t floats_each, const Body& body) {
    const int64_t each = std::max<int64_t>(kFloatsPerTask / floats_each, 1);
    parallel_for(workers_, divide_up(count, each), [&](int64_t task) {
      const int64_t end = std::min(count, (task + 1) * each);
      for (int64_t i = task * each; i < end; ++i) body(i);
    });
  }

  template <typename Body>
  void for_row_blocks(int64_t floats_a_row, const Body& body) {
    for_tasks(cut_.count, floats_a_row * cut_.size(0), body);
  }

  // What the block before has left to add, the norm, and rows prepared for the first product.
  void enter(const Block& block, int64_t cut, bool is_first) {
    static thread_local Scratch scratch;
    const int64_t width = shape_.d_model;
    const int64_t begin = cut_.begin(cut);
    const int rows = cut_.size(cut);
    float* normed = scratch.reserve<float>(rows * width);
    for (int row = 0; row < rows; ++row) {
      float* x = hidden_ + (begin + row) * width;
      if (!is_first) ops_.add(x, added_ + (begin + row) * width, width);
      ops_.norm(x, width, block.norm.scale, block.norm.bias, shape_.norm_eps,
                normed + row * width);
    }
    prepare(normed, begin, rows, into_);
  }

  void prepare(const float* x, int64_t begin, int rows, const MatmulShape& shape) {
    kernel_.prepare(x, rows, shape.inner, shape.groups,
                    prepared_.elements + begin * shape.groups * kernel_.element_bytes,
                    prepared_.info + begin);
  }

  // A row's queries and keys normed and rotated, its keys and values in their pages.
  void place(const Block& block, int64_t row) {
    const int64_t head_dim = shape_.head_dim;
    float* queries = projected_ + row * shape_.into();
    float* keys = queries + shape_.attended();
    const int64_t position = start_[row / shape_.tokens] + row % shape_.tokens;
    const int64_t known = std::clamp<int64_t>(position, 0, shape_.positions - 1);
    const float* turn = turns_ + known * 2 * head_dim;
    const float factor = 1.0f / std::sqrt(static_cast<float>(head_dim));
    turn_heads(queries, shape_.heads, block.query_norm, turn, factor);
    turn_heads(keys, shape_.kv_heads, block.key_norm, turn, 1.0f);
    const NewTokens tokens{shape_.batch, shape_.tokens, shape_.kv_heads, head_dim,
                           shape_.table_width};
    write_token(tokens, layout_, keys, row, table_, start_, block.keys);
    write_token(tokens, layout_, keys + shape_.key_values(), row, table_, start_, block.values);
  }

  void turn_heads(float* heads, int64_t count, const float* scale, const float* turn,
                  float factor) {
    for (int64_t head = 0; head < count; ++head) {
      const int64_t at = head * shape_.head_dim;
      if (scale != nullptr) {
        ops_.norm(heads + at, shape_.head_dim, scale + at, nullptr, shape_.norm_eps, heads + at);
      }
      ops_.rotate(heads + at, shape_.head_dim, turn, shape_.has_half_pairs, factor);
    }
  }

  // Into the first columns of `joined_`.
  void attend(const Block& block) {
    const AttentionShape shape{shape_.batch,       shape_.tokens, shape_.heads,
                               shape_.table_width, shape_.into(), shape_.out()};
    const Pools pools{block.keys,        block.values,    layout_.format, layout_.num_pages,
                      layout_.page_size, shape_.kv_heads, shape_.head_dim};
    paged_attention(shape, pools, projected_, table_, start_, joined_, isa_, workers_);
  }

  // The feed-forward layer's inner columns behind attention's, and rows prepared for the second
  // product.
  void leave(int64_t cut) {
    const int64_t begin = cut_.begin(cut);
    const int rows = cut_.size(cut);
    for (int64_t row = begin; row < begin + rows; ++row) {
      const float* gate =
          projected_ + row * shape_.into() + shape_.attended() + 2 * shape_.key_values();
      const float* up = shape_.is_gated ? gate + shape_.d_ff : nullptr;
      ops_.activate(gate, up, shape_.d_ff, shape_.is_gelu,
                    joined_ + row * shape_.out() + shape_.attended());
    }
    prepare(joined_ + begin * shape_.out(), begin, rows, out_);
  }

  const BlocksShape shape_;
  const MatmulKernel& kernel_;
  const Isa isa_;
  const RowOps& ops_;
  const PageLayout layout_;
  const float* const turns_;
  const int32_t* const table_;
  const int32_t* const start_;
  float* const hidden_;
  Workers& workers_;
  const Blocks cut_;
  const MatmulShape into_;
  const MatmulShape out_;
  PreparedRows prepared_;
  float* projected_;
  float* joined_;
  float* added_;
};

}  // namespace

void run_blocks(const BlocksShape& shape, const MatmulKernel& kernel, Isa isa,
                const PageLayout& layout, const std::vector<Block>& blocks,
                const NormWeights& last_norm, const float* turns, const int32_t* table,
                const int32_t* start, float* hidden, Workers& workers) {
  if (shape.rows() == 0) return;
  Team team(workers);
  BlocksRun run(shape, kernel, isa, layout, turns, table, start, hidden, team);
  bool is_first = true;
  for (const Block& block : blocks) {
    run.step(block, is_first);
    is_first = false;
  }
  run.finish(last_norm, !blocks.empty());
}

}  // namespace talipot
