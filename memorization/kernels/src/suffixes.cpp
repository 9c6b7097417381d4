// Search in a suffix array over token ids; memorization/suffix_array.py says what its files hold.
#include <algorithm>
#include <cstring>
#include <vector>

#include "export.h"

namespace {

// One shard; library side of kernels/suffixes.py's structure.
struct Shard {
  const uint8_t* stored;    // tokens, big-endian, `width` bytes each
  int64_t tokens;
  const int32_t* suffixes;  // [tokens] in ascending order
  const uint64_t* keys;     // [key_count] the first word of every `key_every`-th suffix
  int64_t key_count;
  int64_t key_every;
  int64_t width;            // 2 or 4
};

constexpr int64_t kWordBytes = 8;

// The eight bytes at an address as a number that orders as they do.
TALIPOT_INLINE uint64_t load_word(const uint8_t* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

struct Comparison {
  int64_t shared;  // tokens that suffix and pattern begin with alike
  bool is_below;   // whether the suffix comes before the pattern
};

// Compares from token `shared` on, up to which both are known to be alike. A pattern ends in a
// value that no suffix has, so the comparison ends too.
TALIPOT_INLINE Comparison compare(const Shard& shard, int64_t place, const uint8_t* pattern,
                                  int64_t shared) {
  const int64_t per_word = kWordBytes / shard.width;
  // Past the last word a suffix consists of padding, as that word does.
  const int64_t last_word = shard.tokens - per_word;
  const int64_t suffix = shard.suffixes[place];
  while (true) {
    const int64_t at = std::min(suffix + shared, last_word);
    const uint64_t theirs = load_word(shard.stored + at * shard.width);
    const uint64_t ours = load_word(pattern + shared * shard.width);
    if (theirs != ours) {
      const int64_t alike = __builtin_clzll(theirs ^ ours) / (8 * shard.width);
      return {shared + alike, theirs < ours};
    }
    shared += per_word;
  }
}

struct Bound {
  int64_t place;         // of the first suffix that is not below the pattern
  int64_t below_shared;  // tokens that the pattern shares with the suffix before that place,
  int64_t above_shared;  // and with the one at it; -1 where they were not compared
};

// A binary search that keeps how much the pattern shares with the suffixes at both ends of its
// range (Manber and Myers 1993): what both share, all between them do.
Bound lower_bound(const Shard& shard, const uint8_t* pattern) {
  const uint64_t key = load_word(pattern);
  const uint64_t* end = shard.keys + shard.key_count;
  const uint64_t* from = std::lower_bound(shard.keys, end, key);
  const uint64_t* to = std::upper_bound(from, end, key);
  int64_t low = std::max<int64_t>((from - shard.keys - 1) * shard.key_every, -1);
  int64_t high = std::min<int64_t>((to - shard.keys) * shard.key_every, shard.tokens);
  int64_t low_shared = -1, high_shared = -1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const Comparison found =
        compare(shard, middle, pattern, std::max<int64_t>(std::min(low_shared, high_shared), 0));
    (found.is_below ? low : high) = middle;
    (found.is_below ? low_shared : high_shared) = found.shared;
  }
  return {high, low_shared, high_shared};
}

// Tokens that a pattern shares with the suffix that shares most: a neighbour of its place.
int64_t longest(const Shard& shard, const uint8_t* pattern) {
  Bound bound = lower_bound(shard, pattern);
  if (bound.below_shared < 0 && bound.place > 0) {
    bound.below_shared = compare(shard, bound.place - 1, pattern, 0).shared;
  }
  if (bound.above_shared < 0 && bound.place < shard.tokens) {
    bound.above_shared = compare(shard, bound.place, pattern, 0).shared;
  }
  return std::max<int64_t>({bound.below_shared, bound.above_shared, 0});
}

}  // namespace

// Raises lengths[i] to the tokens of the longest match that begins at token i.
//
//   patterns  the query's tokens as they are stored, and a word's worth of the largest value
//   lengths   [tokens]
TALIPOT_EXPORT void talipot_match_lengths(const Shard* shard, const uint8_t* patterns,
                                          int64_t tokens, int64_t* lengths) {
  for (int64_t start = 0; start < tokens; ++start) {
    lengths[start] = std::max(lengths[start], longest(*shard, patterns + start * shard->width));
  }
}

// Finds the places [first[i], last[i]) of the suffixes that begin with a run of the query.
TALIPOT_EXPORT void talipot_ranges(const Shard* shard, const uint8_t* query, int64_t runs,
                                   const int64_t* starts, const int64_t* lengths, int64_t* first,
                                   int64_t* last) {
  std::vector<uint8_t> pattern;
  for (int64_t run = 0; run < runs; ++run) {
    const uint8_t* begin = query + starts[run] * shard->width;
    pattern.assign(begin, begin + lengths[run] * shard->width);
    const size_t size = pattern.size();
    pattern.resize(size + kWordBytes, 0x00);
    first[run] = lower_bound(*shard, pattern.data()).place;
    std::fill(pattern.begin() + size, pattern.end(), 0xFF);
    last[run] = lower_bound(*shard, pattern.data()).place;
  }
}
