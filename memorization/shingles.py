"""Cuts text into overlapping windows of words, and windows into shingles.

A word is a run of letters, digits and underscores in lower case: punctuation, spacing and capitals
do not tell texts apart.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from memorization import kernels
from memorization.errors import TrainingIndexError
from memorization.rolling_hash import UInt64, mix
from memorization.suffix_array import Int64

_WORD = re.compile(r"\w+")
_MULTIPLIER = 0x9E3779B97F4A7C15
_MAX_REMEMBERED = 1 << 20
_MASK = (1 << 64) - 1


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


def shingle_hashes(text: str, shingle_words: int) -> tuple[int, UInt64]:
    """Number of words of a text, and a 64-bit hash of every run of `shingle_words` of them.

    A word's hash takes its bytes of UTF-8 by eights, so that words of up to eight have none in
    common; a run's is a polynomial of its words', mixed. They are the same in every process.

    Returns:
        words, and uint64[max(0, words - shingle_words + 1)].
    """
    if kernels.is_available():
        return kernels.shingle_hashes(text, shingle_words)
    words = (match.group() for match in _WORD.finditer(text.lower()))
    values = np.fromiter(map(_KNOWN.__getitem__, words), np.uint64)
    hashes = np.zeros(max(0, len(values) - shingle_words + 1), np.uint64)
    for offset in range(shingle_words):
        hashes *= np.uint64(_MULTIPLIER)
        hashes += values[offset : offset + len(hashes)]
    return len(values), mix(hashes)


class _WordHashes(dict[str, int]):
    """Hashes of words; remembers those that it has seen."""

    def __missing__(self, word: str) -> int:
        """Hash a word that was not seen before."""
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        data = word.encode("utf-8", "surrogatepass")
        value = (len(data) * _MULTIPLIER) & _MASK
        for at in range(0, len(data), 8):
            value ^= int.from_bytes(data[at : at + 8], "little")
            value = (value * _MULTIPLIER) & _MASK
            value ^= value >> 32
        self[word] = value
        return value


_KNOWN = _WordHashes()
