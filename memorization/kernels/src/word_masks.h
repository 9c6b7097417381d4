// Which bytes of a folded text belong to words.
#pragma once

#include <cstdint>

#include "cpu.h"

namespace talipot {

constexpr int64_t kBlock = 64;

// Bit b of masks[i] says whether text[64 * i + b] is a lower-case letter, a digit, an underscore or
// no ASCII. Reads 64 * blocks bytes.
void mark_words(Isa isa, const uint8_t* text, int64_t blocks, uint64_t* masks);

}  // namespace talipot
