#include "attention.h"

#include <algorithm>

#include "scratch.h"

namespace talipot {
namespace {

// Scores are kept in units in which exp is exp2.
constexpr float kLog2E = 1.4426950408889634f;

// Products of scores below which a second thread costs more than it gives: some 15 us.
constexpr double kMinSharedProducts = 1 << 18;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

class SingleWorker : public Workers {
 public:
  int64_t threads() const override { return 1; }
  void schedule(std::function<void()> work) override { work(); }
};

// One call's constants, and the work that a task does.
class Attention {
 public:
  Attention(const AttentionShape& shape, const Pools& pools, const float* query,
            const int32_t* table, const int32_t* start, float* y, Isa isa)
      : shape_(shape),
        pools_(pools),
        query_(query),
        table_(table),
        start_(start),
        y_(y),
        group_(shape.heads / pools.kv_heads),
        rows_(shape.tokens * group_),
        kernel_(attention_kernel(isa, rows_)),
        blocks_(divide_up(rows_, kernel_.lanes)),
        state_floats_((pools.head_dim + 2) * kernel_.lanes) {}

  void run(Workers& workers) {
    measure();
    SingleWorker single;
    const bool is_small = products_ < kMinSharedProducts;
    Workers& used = is_small ? static_cast<Workers&>(single) : workers;
    if (items() < 4 * used.threads() && most_segments_ > 1 && used.threads() > 1) {
      run_by_segment(used);
    } else {
      parallel_for(used, items(), [this](int64_t item) { whole_item(item); });
    }
  }

 private:
  // A block of query rows of one batch row and key/value head.
  struct Item {
    int64_t batch;
    int64_t kv_head;
    int64_t first_row;
    int64_t rows;
    int64_t keys;  // as many as its last row sees
  };

  int64_t items() const { return shape_.batch * pools_.kv_heads * blocks_; }

  Item item(int64_t index) const {
    Item found;
    const int64_t block = index % blocks_;
    found.kv_head = index / blocks_ % pools_.kv_heads;
    found.batch = index / blocks_ / pools_.kv_heads;
    found.first_row = block * kernel_.lanes;
    found.rows = std::min<int64_t>(kernel_.lanes, rows_ - found.first_row);
    const int64_t last_token = (found.first_row + found.rows - 1) / group_;
    found.keys = std::min(start_[found.batch] + last_token + 1, present_[found.batch]);
    return found;
  }

  // How many positions of each row have pages, and how much work there is in all.
  void measure() {
    present_ = present_scratch().reserve<int64_t>(shape_.batch);
    for (int64_t b = 0; b < shape_.batch; ++b) {
      const int32_t* pages = table_ + b * shape_.table_width;
      const int64_t keys = std::max<int64_t>(start_[b] + shape_.tokens, 0);
      const int64_t wanted = std::min(shape_.table_width, divide_up(keys, pools_.page_size));
      int64_t count = 0;
      while (count < wanted && pages[count] >= 0 && pages[count] < pools_.num_pages) ++count;
      present_[b] = std::min(keys, count * pools_.page_size);
      products_ += static_cast<double>(present_[b]) * pools_.kv_heads * pools_.head_dim *
                   blocks_ * kernel_.lanes;
      most_segments_ = std::max(most_segments_, divide_up(present_[b], kSegmentKeys));
    }
  }

  static Scratch& present_scratch() {
    static thread_local Scratch scratch;
    return scratch;
  }

  Softmax softmax(float* floats) const {
    return {floats, floats + kernel_.lanes, floats + 2 * kernel_.lanes};
  }

  // The block's query, transposed, in this thread's scratch; valid until the next.
  QueryBlock load(const Item& item) const {
    static thread_local Scratch scratch;
    const int64_t lanes = kernel_.lanes;
    const int64_t head_dim = pools_.head_dim;
    const bool is_widened = pools_.format != PoolFormat::kFloat32;
    float* query = scratch.reserve<float>((head_dim + 1 + kTileKeys) * lanes +
                                          (is_widened ? 2 * kTileKeys * head_dim : 0));
    auto* limits = reinterpret_cast<int32_t*>(query + head_dim * lanes);
    float* scores = query + (head_dim + 1) * lanes;
    int32_t least = static_cast<int32_t>(item.keys) - 1;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t row = item.first_row + lane;
      const bool is_used = lane < item.rows;
      const float* values = query_ + offset(item, row, shape_.query_stride);
      for (int64_t h = 0; h < head_dim; ++h) {
        query[h * lanes + lane] = is_used ? values[h] * kLog2E : 0.0f;
      }
      // A spare lane sees all, so that it never makes a tile need a mask.
      const int64_t limit = is_used ? start_[item.batch] + row / group_ : item.keys - 1;
      limits[lane] = static_cast<int32_t>(std::min(limit, item.keys - 1));
      least = std::min(least, limits[lane]);
    }
    return {query,  limits,  least, table_ + item.batch * shape_.table_width, item.kv_head,
            &pools_, scores, scores + kTileKeys * lanes};
  }

  int64_t offset(const Item& item, int64_t row, int64_t stride) const {
    const int64_t head = item.kv_head * group_ + row % group_;
    return (item.batch * shape_.tokens + row / group_) * stride + head * pools_.head_dim;
  }

  void store(const Item& item, const Softmax& softmax) const {
    kernel_.finish(pools_.head_dim, softmax);
    for (int64_t lane = 0; lane < item.rows; ++lane) {
      float* row = y_ + offset(item, item.first_row + lane, shape_.y_stride);
      const float* mixed = softmax.mixed + lane;
      for (int64_t h = 0; h < pools_.head_dim; ++h) row[h] = mixed[h * kernel_.lanes];
    }
  }

  void store_zeros(const Item& item) const {
    for (int64_t lane = 0; lane < item.rows; ++lane) {
      std::fill_n(y_ + offset(item, item.first_row + lane, shape_.y_stride), pools_.head_dim, 0.0f);
    }
  }

  void whole_item(int64_t index) const {
    const Item item = this->item(index);
    if (item.keys <= 0) return store_zeros(item);
    static thread_local Scratch scratch;
    float* floats = scratch.reserve<float>(2 * state_floats_);
    const Softmax total = softmax(floats);
    const Softmax segment = softmax(floats + state_floats_);
    const QueryBlock block = load(item);
    for (int64_t begin = 0; begin < item.keys; begin += kSegmentKeys) {
      const int64_t end = std::min(item.keys, begin + kSegmentKeys);
      kernel_.attend(block, begin, end, begin == 0 ? total : segment);
      if (begin > 0) kernel_.merge(pools_.head_dim, total, segment);
    }
    store(item, total);
  }

  // Few rows and many keys: the segments are the tasks.
  void run_by_segment(Workers& workers) const {
    static thread_local Scratch scratch;
    float* floats = scratch.reserve<float>(items() * most_segments_ * state_floats_);
    parallel_for(workers, items() * most_segments_, [&](int64_t task) {
      const Item item = this->item(task / most_segments_);
      const int64_t begin = task % most_segments_ * kSegmentKeys;
      if (begin >= item.keys) return;
      kernel_.attend(load(item), begin, std::min(item.keys, begin + kSegmentKeys),
                     softmax(floats + task * state_floats_));
    });
    parallel_for(workers, items(), [&](int64_t index) {
      const Item item = this->item(index);
      if (item.keys <= 0) return store_zeros(item);
      float* first = floats + index * most_segments_ * state_floats_;
      for (int64_t segment = 1; segment * kSegmentKeys < item.keys; ++segment) {
        kernel_.merge(pools_.head_dim, softmax(first), softmax(first + segment * state_floats_));
      }
      store(item, softmax(first));
    });
  }

  const AttentionShape shape_;
  const Pools pools_;
  const float* const query_;
  const int32_t* const table_;
  const int32_t* const start_;
  float* const y_;
  const int64_t group_;  // query heads to a key/value head
  const int64_t rows_;   // query rows of a batch row and key/value head
  const AttentionKernel& kernel_;
  const int64_t blocks_;
  const int64_t state_floats_;
  int64_t* present_ = nullptr;
  int64_t most_segments_ = 0;
  double products_ = 0.0;
};

}  // namespace

const AttentionKernel& attention_kernel(Isa isa, int64_t rows) {
#if TALIPOT_X86
  const CpuFeatures& cpu = cpu_features();
  if (isa >= Isa::kAvx512 && cpu.avx512) return attention_kernel_avx512(rows);
  if (isa >= Isa::kAvx2 && cpu.avx2) return attention_kernel_avx2(rows);
#endif
  (void)isa;
  return attention_kernel_portable(rows);
}

void paged_attention(const AttentionShape& shape, const Pools& pools, const float* query,
                     const int32_t* table, const int32_t* start, float* y, Isa isa,
                     Workers& workers) {
  if (shape.batch == 0 || shape.tokens == 0 || shape.heads == 0) return;
  Attention(shape, pools, query, table, start, y, isa).run(workers);
}

}  // namespace talipot
