"""Hashes of a text's runs of words."""

from __future__ import annotations

import functools
import re
import sys

import numpy as np
from numpy.typing import NDArray

from memorization.kernels.library import level, library

# The two characters whose lower case is no single character, or depends on their neighbours.
_IRREGULAR = ("\u0130", "\u03a3")


def shingle_hashes(text: str, shingle_words: int) -> tuple[int, NDArray[np.uint64]]:
    """Number of words of a text, and the hashes of `memorization.shingles.shingle_hashes`."""
    if any(character in text for character in _IRREGULAR):
        text = text.lower()
    data = text.encode("utf-8", "surrogatepass")
    # Only the part that is written to takes memory.
    hashes = np.empty(len(data) // 2 + 1, np.uint64)
    words: int = library().talipot_shingles(
        *(data, len(data), lower_word_characters().ctypes.data, shingle_words),
        *(hashes.ctypes.data, level()),
    )
    return words, hashes[: max(0, words - shingle_words + 1)]


@functools.cache
def lower_word_characters() -> NDArray[np.uint32]:
    """Each character's lower case, or 0 if that is no part of a word, uint32[0x110000].

    The table is made of Python's own, so that a word is what `\\w+` finds in `text.lower()`.
    """
    points = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    is_regular = (points < 0xD800) | (points > 0xDFFF)  # surrogates are no characters
    is_regular[[ord(character) for character in _IRREGULAR]] = False
    points = points[is_regular]
    lower = points.tobytes().decode("utf-32").lower()
    table = np.zeros(sys.maxunicode + 1, np.uint32)
    is_word = np.zeros(len(lower), np.bool_)
    for run in re.finditer(r"\w+", lower):
        is_word[run.start() : run.end()] = True
    folded = np.array([lower]).view(np.uint32)
    table[points[is_word]] = folded[is_word]
    return table
