"""How a text becomes words, and a word that is in no vocabulary its pieces."""

from __future__ import annotations

import itertools
import re
import zlib

from safety.scorers.normalise import (
    is_spelt_word_by_word,
    with_plain_characters,
    with_plain_spelling,
)

MAX_WORD_CHARACTERS = 24
"""Longer words are cut; scripts without spaces come as words of this length."""

_MAX_REMEMBERED = 100_000
_MAX_REMEMBERED_CHARACTERS = 48
_WORD = re.compile(
    rf"\w[\w*]{{0,{MAX_WORD_CHARACTERS - 1}}}(?:['\u2019]\w{{1,3}}(?!\w))?|([^\w\s])\1*"
)


def split_words(text: str) -> list[str]:
    """The words and marks of a normalised text, in order; a mark repeated counts once."""
    return [word if word[0].isalnum() else word[0] for word in (m[0] for m in _WORD.finditer(text))]


class WordReader(dict[str, list[str]]):
    """Reads texts as `split_words(normalised(text))` does, several times faster.

    Nearly all of a text is words that it has met before. A key is what stands between two white
    spaces, with plain characters; its value is the words and marks in it.
    """

    def __call__(self, text: str) -> list[str]:
        """The words and marks of a text."""
        plain = with_plain_characters(text)
        if not is_spelt_word_by_word(plain):
            return split_words(with_plain_spelling(plain))
        return list(itertools.chain.from_iterable(map(self.__getitem__, plain.split())))

    def __missing__(self, part: str) -> list[str]:
        """Read a part that is not remembered."""
        words = split_words(with_plain_spelling(part))
        if len(part) <= _MAX_REMEMBERED_CHARACTERS:
            if len(self) >= _MAX_REMEMBERED:
                self.clear()
            self[part] = words
        return words


def pieces(word: str, num_buckets: int) -> list[int]:
    """The buckets of a word's character n-grams, n = 3 to 5, and of itself (fastText's subwords).

    The hash is CRC-32, the same on every machine.
    """
    marked = f"<{word}>".encode("utf-8", "replace").decode("utf-8")
    grams = {marked}
    for size in (3, 4, 5):
        grams.update(marked[at : at + size] for at in range(len(marked) - size + 1))
    return sorted(zlib.crc32(gram.encode("utf-8")) % num_buckets for gram in grams)
