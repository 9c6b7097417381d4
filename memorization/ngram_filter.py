"""Which n-grams training text has, in a Bloom filter: what MemFree decoding has to know.

Ippolito et al. 2022 (arXiv 2210.17546), section 4. The filter is Parquet's split block Bloom
filter: a key sets one bit in each of the eight 32-bit words of one block. It never misses an n-gram
of the corpus. A key is `mix` of the low `hash_bits` bits of an n-gram's `kgram_hashes`; its high
word chooses the block, its low word the bits. Whoever asks the filter on a device computes the
same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.errors import TrainingIndexError
from memorization.rolling_hash import UInt64, kgram_hashes, mix
from memorization.suffix_array import ID_SHIFT, SEPARATOR, Stored

MIN_NGRAM, MAX_NGRAM = 4, 64
BITS_PER_NGRAM = 16
"""Of the filter for each n-gram: about one look-up in a thousand finds what is not there."""

_WORDS = 8
_BLOCK_BITS = 32 * _WORDS
_SALTS = np.array(
    [
        *(0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D),
        *(0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31),
    ],
    np.uint32,
)
_CHUNK = 1 << 16

Words = NDArray[np.uint32]
"""A filter's bits, uint32[blocks, 8]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramFilter:
    """Training n-grams, or enough of them.

    Attributes:
        words: uint32[blocks, 8].
        ngram: Tokens of the n-grams that are in it.
        hash_bits: Bits of their hashes that count.
        guarantee_tokens: A text without any of these n-grams has no run of so many training
            tokens; `ngram` where all of the corpus's are in it.
    """

    words: Words
    ngram: int
    hash_bits: int
    guarantee_tokens: int


def empty_words(ngrams: int) -> Words:
    """A filter for so many n-grams, with none in it."""
    return np.zeros((num_blocks(ngrams), _WORDS), np.uint32)


def num_blocks(ngrams: int) -> int:
    """Blocks of a filter for so many n-grams."""
    return max(1, -(-ngrams * BITS_PER_NGRAM // _BLOCK_BITS))


def insert(words: Words, hashes: UInt64) -> None:
    """Put n-grams in, by the bits of their hashes that count, uint64[n]."""
    wide = words.view(np.uint64)
    for begin in range(0, len(hashes), _CHUNK):
        blocks, narrow = _places(hashes[begin : begin + _CHUNK], len(words))
        order = np.argsort(blocks)
        blocks, bits = blocks[order], narrow.view(np.uint64).take(order, 0)
        while len(blocks):
            wide[blocks] = wide.take(blocks, 0) | bits
            # Of several keys of one block the last was written; the others have another turn.
            others = np.flatnonzero(np.diff(blocks, append=-1) == 0)
            blocks, bits = blocks[others], bits.take(others, 0)


def contains(words: Words, hashes: UInt64) -> NDArray[np.bool_]:
    """bool[n]: whether n-grams are in the filter, or look as if they were."""
    blocks, bits = _places(hashes, len(words))
    found: NDArray[np.bool_] = np.all(words[blocks] & bits == bits, axis=1)
    return found


def stored_ngrams(stored: Stored, ngram: int) -> Iterable[UInt64]:
    """Hashes of the n-grams of stored tokens, chunk by chunk; none reaches over a separator."""
    for begin in range(0, max(0, len(stored) - ngram + 1), _CHUNK):
        chunk = np.asarray(stored[begin : begin + _CHUNK + ngram - 1]).astype(np.int64)
        passed = np.cumsum(np.concatenate([[0], chunk == SEPARATOR]))
        is_within = passed[ngram:] == passed[:-ngram]
        yield kgram_hashes(chunk - ID_SHIFT, ngram)[is_within]


def check_ngram(ngram: int) -> None:
    """Accept a length that n-grams may have.

    Raises:
        TrainingIndexError: It is none.
    """
    if not MIN_NGRAM <= ngram <= MAX_NGRAM:
        raise TrainingIndexError(
            f"ngram={ngram} must be from {MIN_NGRAM} to {MAX_NGRAM}, or 0 for no filter"
        )


def _places(hashes: UInt64, blocks: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The block of each key, int64[n], and its bit in each of the words, uint32[n, 8]."""
    keys = mix(hashes)
    block = ((keys >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32)
    low = keys.astype(np.uint32)
    bits = np.uint32(1) << ((low[:, None] * _SALTS) >> np.uint32(27))
    return block.astype(np.int64), bits
