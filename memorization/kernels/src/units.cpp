// A memory of units of text (the spaces before a word, and the word) and their tokens;
// memorization/encode.py says why a text's tokens are those of its units.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "export.h"

namespace {

// Longer ones are runs without spaces, and do not come again.
constexpr int64_t kLongestUnit = 64;
constexpr uint64_t kPrime = 0x9E3779B97F4A7C15;

TALIPOT_INLINE uint64_t hash_unit(std::string_view unit) {
  uint64_t hash = unit.size() * kPrime;
  size_t at = 0;
  for (; at + 8 <= unit.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, unit.data() + at, 8);
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;
  }
  uint64_t word = 0;
  std::memcpy(&word, unit.data() + at, unit.size() - at);
  hash = (hash ^ word) * kPrime;
  return hash ^ (hash >> 32);
}

// The spaces before a word and the word, or the spaces at the end.
TALIPOT_INLINE std::string_view next_unit(std::string_view text) {
  size_t word = 0;
  while (word < text.size() && text[word] == ' ') ++word;
  const void* end = std::memchr(text.data() + word, ' ', text.size() - word);
  return end == nullptr ? text : text.substr(0, static_cast<const char*>(end) - text.data());
}

class Units {
 public:
  Units() { clear(); }

  void clear() {
    slots_.assign(1 << 12, Slot{0, 0});
    units_.clear();
    learned_ = 0;
    bytes_.clear();
  }

  int64_t size() const { return static_cast<int64_t>(units_.size()); }

  // The number of a unit; one that is not known gets the next.
  uint32_t number_of(std::string_view unit) {
    const uint64_t hash = hash_unit(unit);
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t at = hash & (slots_.size() - 1);
    for (; slots_[at].next_number != 0; at = (at + 1) & (slots_.size() - 1)) {
      const uint32_t number = slots_[at].next_number - 1;
      if (slots_[at].tag == tag && text_of(number) == unit) return number;
    }
    units_.push_back({static_cast<uint32_t>(bytes_.size()), static_cast<uint16_t>(unit.size()), 0});
    bytes_.insert(bytes_.end(), unit.begin(), unit.end());
    slots_[at] = {tag, static_cast<uint32_t>(units_.size())};
    if (2 * units_.size() > slots_.size()) grow();
    return static_cast<uint32_t>(units_.size()) - 1;
  }

  // Gives the first unit that has no tokens its tokens. They stand behind its text, so that most
  // look-ups touch a single line of this memory.
  void learn(const uint8_t* tokens, int64_t bytes) {
    Unit& unit = units_[learned_++];
    const std::vector<char> text(bytes_.begin() + unit.begin,
                                 bytes_.begin() + unit.begin + unit.text_bytes);
    unit.begin = static_cast<uint32_t>(bytes_.size());
    unit.token_bytes = static_cast<uint16_t>(bytes);
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    bytes_.insert(bytes_.end(), tokens, tokens + bytes);
  }

  std::string_view tokens_of(uint32_t number) const {
    const Unit& unit = units_[number];
    return {bytes_.data() + unit.begin + unit.text_bytes, unit.token_bytes};
  }

 private:
  struct Slot {
    uint32_t tag;          // the upper half of the unit's hash
    uint32_t next_number;  // its number + 1, or 0
  };

  struct Unit {
    uint32_t begin;
    uint16_t text_bytes;
    uint16_t token_bytes;
  };

  std::string_view text_of(uint32_t number) const {
    return {bytes_.data() + units_[number].begin, units_[number].text_bytes};
  }

  void grow() {
    slots_.assign(2 * slots_.size(), Slot{0, 0});
    for (uint32_t number = 0; number < units_.size(); ++number) {
      const uint64_t hash = hash_unit(text_of(number));
      size_t at = hash & (slots_.size() - 1);
      while (slots_[at].next_number != 0) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = {static_cast<uint32_t>(hash >> 32), number + 1};
    }
  }

  std::vector<Slot> slots_;  // their count is a power of two
  std::vector<Unit> units_;
  size_t learned_ = 0;       // units that have tokens
  std::vector<char> bytes_;
};

}  // namespace

TALIPOT_EXPORT Units* talipot_units_new() { return new Units; }

TALIPOT_EXPORT void talipot_units_free(Units* units) { delete units; }

TALIPOT_EXPORT void talipot_units_clear(Units* units) { units->clear(); }

TALIPOT_EXPORT int64_t talipot_units_size(const Units* units) { return units->size(); }

// Cuts a text from `at` on into at most `capacity` units; stops in front of one that is too long.
//
//   numbers      [capacity] receives the units' numbers
//   ends         [2] receives where it stopped, and where the unit that is too long ends
//   fresh        [64 * capacity] receives the units that were not known before
//   fresh_sizes  [capacity] receives the bytes of each of those
//
// Returns the number of units.
TALIPOT_EXPORT int64_t talipot_units_split(Units* units, const char* text, int64_t bytes,
                                           int64_t at, int64_t capacity, uint32_t* numbers,
                                           int64_t* ends, char* fresh, int64_t* fresh_sizes) {
  int64_t count = 0;
  ends[1] = 0;
  while (at < bytes && count < capacity) {
    const std::string_view unit = next_unit({text + at, static_cast<size_t>(bytes - at)});
    const auto size = static_cast<int64_t>(unit.size());
    if (size > kLongestUnit) {
      ends[1] = at + size;
      break;
    }
    const int64_t known = units->size();
    numbers[count++] = units->number_of(unit);
    if (units->size() > known) {
      fresh = std::copy(unit.begin(), unit.end(), fresh);
      *fresh_sizes++ = size;
    }
    at += size;
  }
  ends[0] = at;
  return count;
}

// Gives the units without tokens theirs, in the order in which they came.
//
//   tokens  the tokens of all of them, one after the other
//   sizes   [count] bytes of each unit's tokens
TALIPOT_EXPORT void talipot_units_learn(Units* units, const uint8_t* tokens, int64_t count,
                                        const int64_t* sizes) {
  for (int64_t i = 0; i < count; ++i) {
    units->learn(tokens, sizes[i]);
    tokens += sizes[i];
  }
}

// Writes the tokens of some units, or nothing where `tokens` is null. Returns their bytes.
TALIPOT_EXPORT int64_t talipot_units_tokens(const Units* units, const uint32_t* numbers,
                                            int64_t count, uint8_t* tokens) {
  int64_t bytes = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto part = units->tokens_of(numbers[i]);
    if (tokens != nullptr) std::memcpy(tokens + bytes, part.data(), part.size());
    bytes += static_cast<int64_t>(part.size());
  }
  return bytes;
}
