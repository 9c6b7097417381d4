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

from memorization import kernels
from memorization.corpus import Document
from memorization.suffix_array import (
    ID_SHIFT,
    Int64,
    Stored,
    require_ids,
    store_tokens,
    stored_dtype,
)
from memorization.tokenizer import IndexTokenizer

Encoded: TypeAlias = tuple[Document, Stored]
Encoder: TypeAlias = Callable[[str], Stored]
"""Gives the stored tokens of a text."""

# The spaces before a word and the word, or the spaces at the end.
_UNIT = re.compile(r" *[^ ]+| +")
_CROSSING = re.compile(rb"[^ ] ")
_MAX_REMEMBERED = 1 << 19
_LONGEST_UNIT = 64
_PIECE_CHARACTERS = 1 << 16
_UNITS_AT_ONCE = 1 << 10


def encode_documents(documents: Iterable[Document], tokenizer: IndexTokenizer) -> Iterator[Encoded]:
    """(document, its stored tokens) in the order of `documents`."""
    encode = make_encoder(tokenizer)
    for document in documents:
        yield document, encode(document.text)


def make_encoder(tokenizer: IndexTokenizer) -> Encoder:
    """The fastest encoder for a tokenizer; not for several threads at once."""
    if not has_word_boundaries(tokenizer):
        return TextEncoder(tokenizer)
    return UnitEncoder(tokenizer) if kernels.is_available() else WordEncoder(tokenizer)


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


class UnitEncoder:
    """The same in a kernel, which asks for the words that it has not seen, many at a time."""

    def __init__(self, tokenizer: IndexTokenizer) -> None:
        """Take a tokenizer with `has_word_boundaries`."""
        self._tokenizer = tokenizer
        self._dtype = stored_dtype(tokenizer.vocab_size)
        sizes = [len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)]
        self._token_bytes = np.array(sizes, np.int64)
        encode_long = TextEncoder(tokenizer)
        self._units = kernels.UnitTokens(
            self._encode_units, lambda unit: encode_long(unit).tobytes()
        )

    def __call__(self, text: str) -> Stored:
        """Stored tokens of a text."""
        return np.frombuffer(self._units(text), self._dtype)

    def _encode_units(self, units: bytes, sizes: Int64) -> tuple[bytes, Int64]:
        """Tokens of units, in groups that a tokenizer takes at once; see `kernels.UnitTokens`."""
        ends = np.cumsum(sizes)
        encoded = []
        for at in range(0, len(sizes), _UNITS_AT_ONCE):
            group = sizes[at : at + _UNITS_AT_ONCE]
            begin, end = ends[at] - sizes[at], ends[at + len(group) - 1]
            encoded.append(self._encode_together(units[begin:end], group))
        tokens, token_sizes = zip(*encoded, strict=True)
        return b"".join(tokens), np.concatenate(token_sizes)

    def _encode_together(self, units: bytes, sizes: Int64) -> tuple[bytes, Int64]:
        """Encodes units as the text that they are, and shares its tokens out by their bytes."""
        tokens = self._store(units)
        token_ends = np.cumsum(self._token_bytes[tokens.astype(np.int64) - ID_SHIFT])
        unit_ends = np.cumsum(sizes)
        if len(tokens) and token_ends[-1] == unit_ends[-1]:
            bounds = np.searchsorted(token_ends, unit_ends)
            if (token_ends[bounds] == unit_ends).all():
                return tokens.tobytes(), np.diff(bounds + 1, prepend=0) * self._dtype.itemsize
        # Tokens stand for other bytes than the text's: a dummy space before it, for example.
        pieces = [
            self._store(units[end - size : end]).tobytes()
            for size, end in zip(sizes.tolist(), unit_ends.tolist(), strict=True)
        ]
        return b"".join(pieces), np.array([len(piece) for piece in pieces], np.int64)

    def _store(self, units: bytes) -> Stored:
        text = units.decode("utf-8", "surrogatepass")
        return store_tokens(self._tokenizer.encode(text), self._tokenizer.vocab_size)


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
            stored = np.concatenate(list(pool.map(self._encode, pieces)))
        # Joining turned them to the machine's order.
        return stored.astype(stored_dtype(self._tokenizer.vocab_size))

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
