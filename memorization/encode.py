"""Turns documents into stored tokens, in order and in bounded memory.

Nearly all of a corpus is words that it has had before. Where no token holds a space behind
anything else, as in SentencePiece and byte-level vocabularies, merges do not reach across the end
of a word: a text's tokens are those of its words, and each different word is encoded once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from memorization.corpus import Document
from memorization.suffix_array import ID_SHIFT, Stored, require_ids, store_tokens, stored_dtype
from memorization.tokenizer import IndexTokenizer

Encoded: TypeAlias = tuple[Document, Stored]

# The spaces before a word and the word, or the spaces at the end.
_UNIT = re.compile(r" *[^ ]+| +")
_CROSSING = re.compile(rb"[^ ] ")
_MAX_REMEMBERED = 1 << 19
_LONGEST_UNIT = 64
_PIECE_CHARACTERS = 1 << 16


def encode_documents(documents: Iterable[Document], tokenizer: IndexTokenizer) -> Iterator[Encoded]:
    """(document, its stored tokens) in the order of `documents`."""
    encode = text_encoder(tokenizer)
    for document in documents:
        yield document, encode(document.text)


def text_encoder(tokenizer: IndexTokenizer) -> Callable[[str], Stored]:
    """From a text to its stored tokens, by the faster way that the tokenizer allows."""
    return WordEncoder(tokenizer) if has_word_boundaries(tokenizer) else TextEncoder(tokenizer)


def has_word_boundaries(tokenizer: IndexTokenizer) -> bool:
    """Whether no token holds a space behind anything else."""
    return not any(
        _CROSSING.search(tokenizer.token_bytes(token_id))
        for token_id in range(tokenizer.vocab_size)
    )


class WordEncoder(dict[str, bytes]):
    """Encodes texts word by word, and remembers words."""

    def __init__(self, tokenizer: IndexTokenizer) -> None:
        """Take a tokenizer with `has_word_boundaries`."""
        super().__init__()
        self._tokenizer = tokenizer
        self._vocab_size = tokenizer.vocab_size
        self._dtype = stored_dtype(self._vocab_size)
        self._code = "H" if self._dtype.itemsize == 2 else "I"

    def __call__(self, text: str) -> Stored:
        """Stored tokens of a text."""
        return np.frombuffer(b"".join(map(self.__getitem__, _UNIT.findall(text))), self._dtype)

    def __missing__(self, unit: str) -> bytes:
        """Encode a word that is not remembered."""
        if len(unit) > _LONGEST_UNIT:  # a run without spaces: no word that comes again
            pieces = split_text(unit)
            return b"".join(self._encode(piece) for piece in pieces)
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        tokens = self[unit] = self._encode(unit)
        return tokens

    def _encode(self, text: str) -> bytes:
        # What `store_tokens` does, in a tenth of its time for a word.
        ids = self._tokenizer.encode(text)
        if not all(0 <= token < self._vocab_size for token in ids):
            require_ids(ids, self._vocab_size)
        return struct.pack(f">{len(ids)}{self._code}", *(token + ID_SHIFT for token in ids))


class TextEncoder:
    """Encodes long texts in pieces, on several threads."""

    def __init__(self, tokenizer: IndexTokenizer) -> None:
        """Take any tokenizer."""
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> Stored:
        """Stored tokens of a text."""
        pieces = split_text(text)
        if len(pieces) == 1:
            return self._encode(text)
        with ThreadPoolExecutor(thread_name_prefix="encode") as pool:
            return np.concatenate(list(pool.map(self._encode, pieces)))

    def _encode(self, text: str) -> Stored:
        return store_tokens(self._tokenizer.encode(text), self._tokenizer.vocab_size)


def split_text(text: str, size: int = _PIECE_CHARACTERS) -> list[str]:
    """Pieces of at most `size` characters that join to `text`.

    A tokenizer needs many times the size of what it is given, so a long text is cut: before the
    last space between two letters in the second half of a piece, or at `size` if there is none.
    """
    pieces: list[str] = []
    begin = 0
    while len(text) - begin > size:
        end = begin + size
        cut = end
        for place in range(end - 1, begin + size // 2, -1):
            if text[place] == " " and text[place - 1].isalpha() and text[place + 1].isalpha():
                cut = place
                break
        pieces.append(text[begin:cut])
        begin = cut
    pieces.append(text[begin:])
    return pieces
