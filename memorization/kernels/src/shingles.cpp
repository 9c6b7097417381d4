// Hashes of a text's words and of the runs of words in it; memorization/shingles.py defines both.
//
// A text is taken in parts that end at a space. Each is folded: words in lower case, and everything
// between them made spaces. Then the bounds of all words are found at once, and then their hashes.
#include <cstring>
#include <vector>

#include "export.h"
#include "word_masks.h"

namespace talipot {
namespace {

constexpr int64_t kPartBytes = 1 << 15;
constexpr uint64_t kBase = 0x9E3779B97F4A7C15;

// Murmur3's 64-bit finalizer.
TALIPOT_INLINE uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 33)) * 0xFF51AFD7ED558CCD;
  value = (value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53;
  return value ^ (value >> 33);
}

// One character of UTF-8 as Python writes it, lone surrogates among it; moves `text` behind it.
TALIPOT_INLINE uint32_t read_character(const uint8_t*& text) {
  const uint32_t first = *text++;
  if (first < 0x80) return first;
  const int more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  uint32_t character = first & (0x3F >> more);
  for (int i = 0; i < more; ++i) character = character << 6 | (*text++ & 0x3F);
  return character;
}

TALIPOT_INLINE uint8_t* write_character(uint32_t character, uint8_t* out) {
  if (character < 0x80) {
    *out++ = static_cast<uint8_t>(character);
    return out;
  }
  const int more = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  *out++ = static_cast<uint8_t>((0xFF00 >> (more + 1)) | character >> (6 * more));
  for (int i = more - 1; i >= 0; --i) *out++ = 0x80 | (character >> (6 * i) & 0x3F);
  return out;
}

using Chunk = uint8_t __attribute__((vector_size(16)));

// Sixteen bytes with their ASCII capitals made small; false, and nothing done, if any is no ASCII.
TALIPOT_INLINE bool fold_ascii(const uint8_t* text, uint8_t* out) {
  uint64_t words[2];
  std::memcpy(words, text, sizeof words);
  if ((words[0] | words[1]) & 0x8080808080808080) return false;
  Chunk bytes;
  std::memcpy(&bytes, text, sizeof bytes);
  bytes += reinterpret_cast<Chunk>(bytes - 'A' < 26) & 0x20;
  std::memcpy(out, &bytes, sizeof bytes);
  return true;
}

// Returns the end of what it wrote: at most one and a half times the text.
uint8_t* fold_part(const uint8_t* text, const uint8_t* end, const uint32_t* fold, uint8_t* out) {
  while (text < end) {
    if (end - text >= 16 && fold_ascii(text, out)) {
      text += 16;
      out += 16;
      continue;
    }
    for (const uint8_t* stop = end - text < 16 ? end : text + 16; text < stop;) {
      const uint32_t character = fold[read_character(text)];
      out = write_character(character == 0 ? ' ' : character, out);
    }
  }
  return out;
}

TALIPOT_INLINE uint64_t load(const uint8_t* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

// Eight bytes may be read at each byte of the word.
TALIPOT_INLINE uint64_t hash_word(const uint8_t* word, uint64_t size) {
  uint64_t hash = size * kBase;
  for (; size > 8; size -= 8, word += 8) {
    hash = (hash ^ load(word)) * kBase;
    hash ^= hash >> 32;
  }
  hash = (hash ^ (load(word) & ~uint64_t{0} >> (64 - 8 * size))) * kBase;
  return hash ^ hash >> 32;
}

class Words {
 public:
  Words(const uint32_t* fold, Isa isa) : fold_(fold), isa_(isa) {}

  // Writes the hashes of a part's words; returns their end.
  uint64_t* hash(const uint8_t* text, const uint8_t* end, uint64_t* hashes) {
    folded_.resize((end - text) * 3 / 2 + 2 * kBlock);
    uint8_t* folded_end = fold_part(text, end, fold_, folded_.data());
    // One space at least ends the last word.
    const int64_t blocks = (folded_end - folded_.data()) / kBlock + 1;
    std::memset(folded_end, ' ', kBlock);
    find_bounds(blocks);
    for (size_t i = 0; i + 1 < bounds_.size(); i += 2) {
      *hashes++ = hash_word(folded_.data() + bounds_[i], bounds_[i + 1] - bounds_[i]);
    }
    return hashes;
  }

 private:
  // Where words begin and end, in turn.
  void find_bounds(int64_t blocks) {
    masks_.resize(blocks);
    mark_words(isa_, folded_.data(), blocks, masks_.data());
    bounds_.clear();
    uint64_t before = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      const uint64_t mask = masks_[block];
      for (uint64_t edges = mask ^ (mask << 1 | before); edges != 0; edges &= edges - 1) {
        bounds_.push_back(kBlock * block + __builtin_ctzll(edges));
      }
      before = mask >> 63;
    }
  }

  const uint32_t* fold_;
  Isa isa_;
  std::vector<uint8_t> folded_;
  std::vector<uint64_t> masks_;
  std::vector<int64_t> bounds_;
};

int64_t hash_words(const uint8_t* text, int64_t bytes, Words words, uint64_t* hashes) {
  const uint8_t* end = text + bytes;
  uint64_t* next = hashes;
  while (text < end) {
    const void* space = nullptr;
    if (end - text > kPartBytes) {
      space = std::memchr(text + kPartBytes, ' ', end - text - kPartBytes);
    }
    const uint8_t* part_end = space == nullptr ? end : static_cast<const uint8_t*>(space);
    next = words.hash(text, part_end, next);
    text = part_end;
  }
  return next - hashes;
}

}  // namespace
}  // namespace talipot

// Hashes every run of `shingle_words` words of a text.
//
//   text      UTF-8 [bytes], well-formed but for lone surrogates
//   fold      [0x110000] a character's lower case, or 0 for what is no part of a word
//   shingles  [bytes / 2 + 1] receives max(0, words - shingle_words + 1) hashes
//
// Returns the number of words.
TALIPOT_EXPORT int64_t talipot_shingles(const uint8_t* text, int64_t bytes, const uint32_t* fold,
                                        int64_t shingle_words, uint64_t* shingles, int32_t isa) {
  using namespace talipot;
  const int64_t words = hash_words(text, bytes, Words(fold, static_cast<Isa>(isa)), shingles);
  // A run begins at its first word, whose hash no later run needs: its place is free.
  for (int64_t at = 0; at + shingle_words <= words; ++at) {
    uint64_t hash = 0;
    for (int64_t word = 0; word < shingle_words; ++word) {
      hash = hash * kBase + shingles[at + word];
    }
    shingles[at] = mix(hash);
  }
  return words;
}
