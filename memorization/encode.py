"""Turns documents into tokens on several threads, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from memorization.corpus import Document
from memorization.suffix_array import Stored, store_tokens
from memorization.tokenizer import IndexTokenizer

PIECE_CHARACTERS = 1 << 16
"""A longer document is encoded in pieces, cut where a word begins: tokenizers need many times the
size of what they are given, and the pieces keep all threads busy. Vocabularies whose tokens do not
reach across the start of a word, as those of SentencePiece and of byte-level BPE do not, give the
same tokens as for the whole."""

_AHEAD_CHARACTERS = 64 * PIECE_CHARACTERS

Encoded: TypeAlias = tuple[Document, Stored]


def split_text(text: str, size: int = PIECE_CHARACTERS) -> list[str]:
    """Pieces of about `size` characters that join to `text`; each begins with a space and a letter.

    Where no such place lies within `size` characters, the cut is made at `size`.
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


def encode_documents(documents: Iterable[Document], tokenizer: IndexTokenizer) -> Iterator[Encoded]:
    """(document, its stored tokens) in the order of `documents`.

    No more than a few million characters are waiting at a time, beside one document.
    """
    vocab_size = tokenizer.vocab_size

    def encode(piece: str) -> Stored:
        return store_tokens(tokenizer.encode(piece), vocab_size)

    waiting: deque[tuple[Document, list[Future[Stored]]]] = deque()
    characters = 0
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="encode") as pool:
        try:
            for document in documents:
                waiting.append(
                    (document, [pool.submit(encode, p) for p in split_text(document.text)])
                )
                characters += len(document.text)
                while characters > _AHEAD_CHARACTERS and waiting:
                    first, futures = waiting.popleft()
                    characters -= len(first.text)
                    yield first, np.concatenate([future.result() for future in futures])
            while waiting:
                first, futures = waiting.popleft()
                yield first, np.concatenate([future.result() for future in futures])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
