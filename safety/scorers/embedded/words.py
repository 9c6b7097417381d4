"""How a text becomes words, and a word that is in no vocabulary its pieces."""

from __future__ import annotations

import re
import zlib

MAX_WORD_CHARACTERS = 24
"""Longer words are cut; scripts without spaces come as words of this length."""

_WORD = re.compile(
    rf"\w[\w*]{{0,{MAX_WORD_CHARACTERS - 1}}}(?:['\u2019]\w{{1,3}}(?!\w))?|([^\w\s])\1*"
)


def split_words(text: str) -> list[str]:
    """The words and marks of a normalised text, in order; a mark repeated counts once."""
    return [word if word[0].isalnum() else word[0] for word in (m[0] for m in _WORD.finditer(text))]


def pieces(word: str, num_buckets: int) -> list[int]:
    """The buckets of a word's character n-grams, n = 3 to 5, and of itself (fastText's subwords).

    The hash is CRC-32, the same on every machine.
    """
    marked = f"<{word}>".encode("utf-8", "replace").decode("utf-8")
    grams = {marked}
    for size in (3, 4, 5):
        grams.update(marked[at : at + size] for at in range(len(marked) - size + 1))
    return sorted(zlib.crc32(gram.encode("utf-8")) % num_buckets for gram in grams)
