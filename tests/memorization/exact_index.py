"""An index for tests that compares every place with every other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memorization.errors import IndexUnavailableError, TrainingIndexError
from memorization.index import NearDuplicate, Occurrence, Span
from memorization.ngram_filter import NgramFilter, empty_words, insert
from memorization.rolling_hash import kgram_hashes


class ExactIndex:
    """Holds documents of token ids; `is_away` makes its store not answer."""

    tokenizer_identity = "test"
    sure_tokens: int | None = 1

    def __init__(self, documents: Sequence[Sequence[int]] = (), ngram: int | None = None) -> None:
        self.ngram = ngram
        self.documents = [list(document) for document in documents]
        self.is_away = False
        self.queries = 0

    def ngrams(self) -> NgramFilter | None:
        if self.ngram is None:
            return None
        words = empty_words(1024)
        for document in self.documents:
            insert(words, kgram_hashes(np.asarray(document, np.int64), self.ngram))
        return NgramFilter(words=words, ngram=self.ngram, hash_bits=64, guarantee_tokens=self.ngram)

    def longest_matches(
        self, tokens: Sequence[int], *, min_tokens: int = 1, max_occurrences: int = 10
    ) -> list[Span]:
        if self.is_away:
            raise IndexUnavailableError("the store does not answer")
        self.queries += 1
        spans, furthest = [], 0
        for start in range(len(tokens)):
            length, places = self._longest(tokens[start:])
            if length >= min_tokens and start + length > furthest:
                furthest = start + length
                occurrences = tuple(
                    Occurrence(document=f"d{d}", title=f"Book {d}", source="test", offset=offset)
                    for d, offset in places
                )
                spans.append(
                    Span(
                        start=start,
                        length=length,
                        max_length=length,
                        count=len(places),
                        occurrences=occurrences[:max_occurrences],
                    )
                )
        return spans

    def near_duplicates(self, text: str, *, min_similarity: float = 0.5) -> list[NearDuplicate]:
        raise TrainingIndexError("none here")

    def _longest(self, query: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
        best, places = 0, []
        for number, document in enumerate(self.documents):
            for offset in range(len(document)):
                length = 0
                for one, other in zip(query, document[offset:], strict=False):
                    if one != other:
                        break
                    length += 1
                if length > best:
                    best, places = length, []
                if length and length == best:
                    places.append((number, offset))
        return best, places
