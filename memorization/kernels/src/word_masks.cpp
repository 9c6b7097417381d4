#include "word_masks.h"

#include <algorithm>

#if TALIPOT_X86
#include <immintrin.h>
#endif

#include "export.h"

namespace talipot {
namespace {

TALIPOT_INLINE bool in_word(uint8_t byte) {
  return static_cast<uint8_t>(byte - 'a') < 26 || static_cast<uint8_t>(byte - '0') < 10 ||
         byte == '_' || byte >= 0x80;
}

void mark_words_portable(const uint8_t* text, int64_t blocks, uint64_t* masks) {
  for (int64_t block = 0; block < blocks; ++block, text += kBlock) {
    uint64_t mask = 0;
    for (int bit = 0; bit < kBlock; ++bit) mask |= uint64_t{in_word(text[bit])} << bit;
    masks[block] = mask;
  }
}

#if TALIPOT_X86
// All ones in the lanes from `first` on, `count` values.
TALIPOT_AVX2 inline __m256i within(__m256i text, char first, char count) {
  const __m256i offset = _mm256_sub_epi8(text, _mm256_set1_epi8(first));
  return _mm256_cmpeq_epi8(_mm256_min_epu8(offset, _mm256_set1_epi8(count - 1)), offset);
}

TALIPOT_AVX2 void mark_words_avx2(const uint8_t* text, int64_t blocks, uint64_t* masks) {
  for (int64_t half = 0; half < 2 * blocks; ++half, text += kBlock / 2) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text));
    const __m256i letters = _mm256_or_si256(within(bytes, 'a', 26), within(bytes, '_', 1));
    // The sign bits of what is no ASCII are set already.
    const __m256i all = _mm256_or_si256(_mm256_or_si256(letters, within(bytes, '0', 10)), bytes);
    const uint64_t bits = static_cast<uint32_t>(_mm256_movemask_epi8(all));
    masks[half / 2] = half % 2 == 0 ? bits : masks[half / 2] | bits << 32;
  }
}

TALIPOT_AVX512 inline uint64_t within(__m512i text, char first, char count) {
  return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(text, _mm512_set1_epi8(first)),
                                _mm512_set1_epi8(count));
}

TALIPOT_AVX512 void mark_words_avx512(const uint8_t* text, int64_t blocks, uint64_t* masks) {
  for (int64_t block = 0; block < blocks; ++block, text += kBlock) {
    const __m512i bytes = _mm512_loadu_si512(text);
    masks[block] = within(bytes, 'a', 26) | within(bytes, '_', 1) | within(bytes, '0', 10) |
                   _mm512_movepi8_mask(bytes);
  }
}
#endif

}  // namespace

void mark_words(Isa isa, const uint8_t* text, int64_t blocks, uint64_t* masks) {
  switch (std::min(isa, best_isa())) {
#if TALIPOT_X86
    case Isa::kAvx512:
      return mark_words_avx512(text, blocks, masks);
    case Isa::kAvx2:
      return mark_words_avx2(text, blocks, masks);
#endif
    default:
      return mark_words_portable(text, blocks, masks);
  }
}

}  // namespace talipot
