"""Cuts text into overlapping windows of words, and windows into shingles.

A word is a run of letters, digits and underscores in lower case: punctuation, spacing and capitals
do not tell texts apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from memorization.errors import TrainingIndexError
from memorization.rolling_hash import UInt64, mix
from memorization.suffix_array import Int64

_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MAX_REMEMBERED = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """How documents are cut.

    Attributes:
        shingle_words: Words of a shingle.
        window_words: Words of a window; a text no longer than that is one window.
        stride_words: Words from one window's start to the next; the last window ends with the
            text.
    """

    shingle_words: int = 3
    window_words: int = 100
    stride_words: int = 50

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.shingle_words <= self.window_words:
            raise TrainingIndexError(
                f"shingle_words={self.shingle_words} must be from 1 to "
                f"window_words={self.window_words}"
            )
        if not 1 <= self.stride_words <= self.window_words:
            raise TrainingIndexError(
                f"stride_words={self.stride_words} must be from 1 to "
                f"window_words={self.window_words}, or words between windows are lost"
            )

    def starts(self, words: int) -> Int64:
        """First word of each window of a text, int64[windows]; none for less than a shingle."""
        if words < self.shingle_words:
            return np.empty(0, np.int64)
        last = max(0, words - self.window_words)
        return np.append(np.arange(0, last, self.stride_words, dtype=np.int64), last)

    def shingles_of(self, words: int) -> int:
        """Shingles of one window of a text with so many words."""
        return min(self.window_words, words) - self.shingle_words + 1


def split_words(text: str) -> list[str]:
    """The words of a text."""
    return _WORD.findall(text.lower())


class WordHashes(dict[str, int]):
    """A 64-bit hash of each word, the same in every process; remembers the words it has seen."""

    def __missing__(self, word: str) -> int:
        """Hash a word that was not seen before."""
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "little")
        return value


def shingle_hashes(words: Sequence[str], shingle_words: int, known: WordHashes) -> UInt64:
    """A 64-bit hash of every run of `shingle_words` words, uint64[max(0, words - n + 1)]."""
    values = np.array([known[word] for word in words], np.uint64)
    count = max(0, len(words) - shingle_words + 1)
    hashes = np.zeros(count, np.uint64)
    for offset in range(shingle_words):
        hashes *= _BASE
        hashes += values[offset : offset + count]
    return mix(hashes)
