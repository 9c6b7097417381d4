"""Filters of n-grams, made by the package that makes them for servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from memorization.ngram_filter import empty_words, insert
from memorization.rolling_hash import kgram_hashes
from serving.ngram_filter import NgramFilter

ROOM = 4096
"""N-grams that every filter here has room for, so that all have one shape."""


def filter_of(documents: Iterable[Sequence[int]], ngram: int) -> NgramFilter:
    """All n-grams of some documents."""
    words = empty_words(ROOM)
    for document in documents:
        insert(words, kgram_hashes(np.asarray(document, np.int64), ngram))
    return NgramFilter(words=words, ngram=ngram)


def ngrams_of(documents: Iterable[Sequence[int]], ngram: int) -> set[tuple[int, ...]]:
    """The same as a set."""
    return {
        tuple(document[at : at + ngram])
        for document in documents
        for at in range(len(document) - ngram + 1)
    }


def ended(prompt: Sequence[int], generated: Sequence[int], ngram: int) -> set[tuple[int, ...]]:
    """Every n-gram whose last token was generated, also those that begin in the prompt."""
    tokens = [*prompt, *generated]
    first = max(0, len(prompt) - ngram + 1)
    return ngrams_of([tokens[first:]], ngram)
