// The embedded scorer's network; safety/scorers/embedded/layers.py says the same in numpy.
//
// Words lie one after the other without gaps: where a convolution reaches past a text's end it reads
// a row of zeros. What the first convolution makes of a word as an earlier, the middle and a later
// one depends on the word alone, so it is computed once for each word, and the first block is sums.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "products.h"

namespace {

using talipot::Isa;
using talipot::kMostRows;

constexpr int kTaps = 3;             // words that a convolution sees
constexpr int64_t kRowsAtOnce = 256;  // about: with all they need they fit a second-level cache
constexpr float kHighestScore = 30;  // of a word's attention, whose exponential is taken

struct Block {
  std::vector<float> panels;
  std::vector<float> bias;
  int64_t dilation;
};

class Network {
 public:
  // Sizes are multiples of kPanel, what is there too many zero.
  Network(int64_t width, int64_t hidden, const float* attention, const float* hidden_panels,
          const float* hidden_bias, const float* output_panels)
      : width_(width),
        hidden_(hidden),
        attention_(attention, attention + width),
        hidden_panels_(hidden_panels, hidden_panels + 2 * width * hidden),
        hidden_bias_(hidden_bias, hidden_bias + hidden),
        output_panels_(output_panels, output_panels + hidden * talipot::kPanel),
        zeros_(std::max(2 * width, hidden)) {}

  void add_block(const float* panels, const float* bias, int64_t dilation) {
    blocks_.push_back({{panels, panels + kTaps * width_ * width_}, {bias, bias + width_}, dilation});
  }

  void clear() { words_.clear(); }

  // Keeps a word's vector, and what the first convolution makes of it; gives its number.
  int64_t learn(const float* vector, Isa isa) {
    const auto number = static_cast<int64_t>(words_.size()) / word_floats();
    const int64_t panels = width_ / talipot::kPanel;
    const int64_t panel_floats = width_ * talipot::kPanel;
    words_.insert(words_.end(), vector, vector + width_);
    words_.resize((number + 1) * word_floats());
    start_inputs(1, 1);
    inputs_[0] = vector;
    for (int tap = 0; tap < kTaps; ++tap) {
      float* results = words_.data() + number * word_floats() + (1 + tap) * width_;
      for (int64_t panel = 0; panel < panels; ++panel) {
        const float* factors =
            blocks_[0].panels.data() + (panel * kTaps + tap) * panel_floats;
        multiply(isa, {inputs_.data(), 1, kMostRows, width_, factors, talipot::kPanel, 1,
                       results + panel * talipot::kPanel});
      }
    }
    return number;
  }

  // Logits of some texts: [texts, kPanel].
  void score(const int32_t* words, const int64_t* lengths, int64_t texts, float* logits, Isa isa) {
    pooled_.resize(texts * 2 * width_);
    for (int64_t text = 0; text < texts;) {
      int64_t rows = 0;
      int64_t end = text;
      while (end < texts && (rows == 0 || rows + lengths[end] <= kRowsAtOnce)) {
        rows += lengths[end++];
      }
      lengths_ = lengths + text;
      texts_ = end - text;
      rows_ = rows;
      first_block(words);
      for (size_t block = 1; block < blocks_.size(); ++block) later_block(blocks_[block], isa);
      pool(pooled_.data() + text * 2 * width_);
      words += rows;
      text = end;
    }
    hiddens_.resize(texts * hidden_);
    dense(pooled_.data(), texts, 2 * width_, hidden_panels_, hidden_, hiddens_.data(), isa);
    for (int64_t text = 0; text < texts; ++text) {
      float* hidden = hiddens_.data() + text * hidden_;
      for (int64_t i = 0; i < hidden_; ++i) hidden[i] = std::max(hidden[i] + hidden_bias_[i], 0.0f);
    }
    dense(hiddens_.data(), texts, hidden_, output_panels_, talipot::kPanel, logits, isa);
  }

 private:
  int64_t word_floats() const { return (1 + kTaps) * width_; }

  const float* word(int32_t number) const { return words_.data() + number * word_floats(); }

  // Each row's position in its text, and how many words follow it there.
  template <class Visit>
  void each_row(Visit visit) const {
    int64_t row = 0;
    for (int64_t text = 0; text < texts_; ++text) {
      for (int64_t i = 0; i < lengths_[text]; ++i, ++row) visit(row, i, lengths_[text] - 1 - i);
    }
  }

  void first_block(const int32_t* words) {
    const Block& block = blocks_[0];
    const int64_t apart = block.dilation;
    const float* bias = block.bias.data();
    states_.resize(rows_ * width_);
    each_row([&](int64_t row, int64_t before, int64_t after) {
      const float* own = word(words[row]);
      const float* earlier = before < apart ? zeros_.data() : word(words[row - apart]) + width_;
      const float* later = after < apart ? zeros_.data() : word(words[row + apart]) + 3 * width_;
      const float* middle = own + 2 * width_;
      float* state = states_.data() + row * width_;
      for (int64_t i = 0; i < width_; ++i) {
        state[i] = own[i] + std::max(middle[i] + earlier[i] + later[i] + bias[i], 0.0f);
      }
    });
  }

  void later_block(const Block& block, Isa isa) {
    const int64_t apart = block.dilation * width_;
    start_inputs(kTaps, rows_);
    const int64_t stride = static_cast<int64_t>(inputs_.size()) / kTaps;
    each_row([&](int64_t row, int64_t before, int64_t after) {
      const float* state = states_.data() + row * width_;
      if (before >= block.dilation) inputs_[row] = state - apart;
      inputs_[stride + row] = state;
      if (after >= block.dilation) inputs_[2 * stride + row] = state + apart;
    });
    changes_.resize(rows_ * width_);
    multiply(isa, {inputs_.data(), kTaps, stride, width_, block.panels.data(), width_, rows_,
                   changes_.data()});
    const float* bias = block.bias.data();
    for (int64_t row = 0; row < rows_; ++row) {
      float* state = states_.data() + row * width_;
      const float* change = changes_.data() + row * width_;
      for (int64_t i = 0; i < width_; ++i) state[i] += std::max(change[i] + bias[i], 0.0f);
    }
  }

  // Highest value and average of a text's states, words counting by their attention.
  void pool(float* pooled) const {
    const float* state = states_.data();
    for (int64_t text = 0; text < texts_; ++text, pooled += 2 * width_) {
      float* highest = pooled;
      float* average = pooled + width_;
      std::fill(pooled, pooled + 2 * width_, 0.0f);  // no state is negative
      float total = 0;
      for (int64_t i = 0; i < lengths_[text]; ++i, state += width_) {
        const float importance = std::exp(std::min(attention(state), kHighestScore));
        total += importance;
        for (int64_t j = 0; j < width_; ++j) {
          highest[j] = std::max(highest[j], state[j]);
          average[j] += importance * state[j];
        }
      }
      for (int64_t j = 0; j < width_; ++j) average[j] /= total;
    }
  }

  float attention(const float* state) const {
    float sums[8] = {};  // in an order that vectors keep
    for (int64_t i = 0; i < width_; i += 8) {
      for (int64_t j = 0; j < 8; ++j) sums[j] += state[i + j] * attention_[i + j];
    }
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
  }

  void dense(const float* inputs, int64_t rows, int64_t depth, const std::vector<float>& panels,
             int64_t columns, float* results, Isa isa) {
    start_inputs(1, rows);
    for (int64_t row = 0; row < rows; ++row) inputs_[row] = inputs + row * depth;
    multiply(isa, {inputs_.data(), 1, 0, depth, panels.data(), columns, rows, results});
  }

  // Room for the inputs of so many rows, all of them zeros so far.
  void start_inputs(int64_t taps, int64_t rows) {
    inputs_.assign(taps * ((rows + kMostRows - 1) / kMostRows) * kMostRows, zeros_.data());
  }

  const int64_t width_, hidden_;
  const std::vector<float> attention_, hidden_panels_, hidden_bias_, output_panels_, zeros_;
  std::vector<Block> blocks_;
  std::vector<float> words_;  // of each its vector, and what the first convolution makes of it

  // Of the texts at hand.
  const int64_t* lengths_ = nullptr;
  int64_t texts_ = 0, rows_ = 0;
  std::vector<float> states_, changes_, pooled_, hiddens_;
  std::vector<const float*> inputs_;
};

}  // namespace

TALIPOT_EXPORT Network* talipot_network_new(int64_t width, int64_t hidden, const float* attention,
                                            const float* hidden_panels, const float* hidden_bias,
                                            const float* output_panels) {
  return new Network(width, hidden, attention, hidden_panels, hidden_bias, output_panels);
}

TALIPOT_EXPORT void talipot_network_free(Network* network) { delete network; }

TALIPOT_EXPORT void talipot_network_add_block(Network* network, const float* panels,
                                              const float* bias, int64_t dilation) {
  network->add_block(panels, bias, dilation);
}

TALIPOT_EXPORT void talipot_network_clear(Network* network) { network->clear(); }

TALIPOT_EXPORT int64_t talipot_network_learn(Network* network, const float* vector, int32_t isa) {
  return network->learn(vector, static_cast<Isa>(isa));
}

TALIPOT_EXPORT void talipot_network_score(Network* network, const int32_t* words,
                                          const int64_t* lengths, int64_t texts, float* logits,
                                          int32_t isa) {
  network->score(words, lengths, texts, logits, static_cast<Isa>(isa));
}
