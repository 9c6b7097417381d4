"""The text-free index: finds verbatim runs by fingerprints, without holding the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorization.errors import TrainingIndexError
from memorization.fingerprint_file import Fingerprints, read_fingerprints
from memorization.index import NearDuplicate, Occurrence, Span
from memorization.ngram_filter import NgramFilter, empty_words, insert
from memorization.rolling_hash import UInt64, kgram_hashes
from memorization.suffix_array import Int64, require_ids
from memorization.winnowing import Winnowing

# A fingerprint of front matter or a ruled line stands in the corpus thousands of times; so many of
# its places are followed.
_MAX_PLACES = 1024


class FingerprintIndex:
    """A `TrainingIndex` of fingerprints.

    Every run of at least `winnowing.guarantee_tokens` tokens that the corpus has is found. A run's
    ends are known only to the nearest fingerprint: `length` is what fingerprints cover, and
    `max_length` what can match at most, by the next fingerprint of the document that does not.
    What is found is false only if two k-grams share `hash_bits` bits.
    """

    def __init__(self, prints: Fingerprints) -> None:
        """Sort the fingerprints for search."""
        self.winnowing: Winnowing = prints.winnowing
        self.vocab_size = prints.vocab_size
        self._identity = prints.tokenizer_identity
        self._positions = prints.positions
        self._starts = prints.starts
        self._names = prints.names
        self._order = np.argsort(prints.hashes, kind="stable")
        self._sorted = prints.hashes[self._order]

    @classmethod
    def open(cls, path: Path) -> FingerprintIndex:
        """Read a file of fingerprints.

        Raises:
            TrainingIndexError: The file is missing or damaged.
        """
        return cls(read_fingerprints(path))

    @property
    def tokenizer_identity(self) -> str:
        """Identity of the tokenizer that it was built with."""
        return self._identity

    @property
    def sure_tokens(self) -> int:
        """See `TrainingIndex`."""
        return self.winnowing.guarantee_tokens

    @property
    def num_documents(self) -> int:
        """Documents in the corpus."""
        return len(self._names)

    @property
    def num_fingerprints(self) -> int:
        """Fingerprints kept of them."""
        return len(self._positions)

    @property
    def sorted_hashes(self) -> UInt64:
        """All fingerprints in ascending order, uint64[kept]."""
        return self._sorted

    def ngrams(self) -> NgramFilter:
        """See `TrainingIndex`: the runs of `winnowing.k` tokens that were kept.

        Every run of `winnowing.guarantee_tokens` has one.
        """
        words = empty_words(len(self._sorted))
        insert(words, self._sorted)
        return NgramFilter(
            words=words,
            ngram=self.winnowing.k,
            hash_bits=self.winnowing.hash_bits,
            guarantee_tokens=self.winnowing.guarantee_tokens,
        )

    def near_duplicates(self, text: str, *, min_similarity: float = 0.5) -> list[NearDuplicate]:
        """Refuse: fingerprints tell verbatim runs alone.

        Raises:
            TrainingIndexError: Always.
        """
        raise TrainingIndexError("a text-free index finds verbatim runs, no near duplicates")

    def longest_matches(
        self, tokens: Sequence[int], *, min_tokens: int = 1, max_occurrences: int = 10
    ) -> list[Span]:
        """Return the runs of the query that the corpus has; see `TrainingIndex.longest_matches`.

        Runs of which `max_length` is at least ``min_tokens`` are returned.
        """
        ids = require_ids(tokens, self.vocab_size)
        chains = self._chains(ids)
        by_span: dict[tuple[int, int], list[int]] = {}
        for row in range(len(chains)):
            start, end = int(chains[row, 0]), int(chains[row, 1])
            by_span.setdefault((start, end), []).append(row)
        spans: list[Span] = []
        furthest = -1
        for start, end in sorted(by_span, key=lambda span: (span[0], -span[1])):
            if end <= furthest:
                continue
            furthest = end
            covering = chains[(chains[:, 0] <= start) & (chains[:, 1] >= end)]
            own = chains[by_span[start, end]]
            longest = int((own[:, 3] - own[:, 2]).max())
            if longest >= min_tokens:
                places = np.sort(covering[:, 4] + start)
                spans.append(
                    Span(
                        start=start,
                        length=end - start,
                        max_length=longest,
                        count=len(places),
                        occurrences=self.occurrences(places[:max_occurrences]),
                    )
                )
        return spans

    def places(self, kgram_hash: int) -> Int64:
        """Indices of the fingerprints with a 64-bit hash, in corpus order, at most 1024."""
        key = np.uint64(kgram_hash & self.winnowing.hash_mask)
        first = int(np.searchsorted(self._sorted, key, "left"))
        last = int(np.searchsorted(self._sorted, key, "right"))
        return self._order[first : min(last, first + _MAX_PLACES)]

    def position(self, place: int) -> int:
        """First token of a fingerprint, counted over all documents."""
        return int(self._positions[place])

    def are_neighbours(self, place: int, next_place: int) -> bool:
        """Whether two fingerprints stand one after the other in the same document."""
        if place + 1 != next_place:
            return False
        documents = np.searchsorted(self._starts, self._positions[place : place + 2], "right")
        return bool(documents[0] == documents[1])

    def bounds(self, place: int) -> tuple[int, int]:
        """Tokens around a fingerprint that a run through it may have at most, as `[first, end)`.

        The bounds are the neighbouring fingerprints' own and the document's: a run that went
        further would hold the neighbour, whose match is seen.
        """
        first, end = self._bounds(np.array([place], np.int64), np.array([place], np.int64))
        return int(first[0]), int(end[0])

    def occurrences(self, positions: Int64) -> tuple[Occurrence, ...]:
        """Names of the documents at token positions, counted over all documents."""
        documents = np.searchsorted(self._starts, positions, "right") - 1
        return tuple(
            Occurrence(
                document=self._names[document][0],
                title=self._names[document][1],
                source=self._names[document][2],
                offset=int(position - self._starts[document]),
            )
            for position, document in zip(positions.tolist(), documents.tolist(), strict=True)
        )

    def _chains(self, ids: NDArray[np.int64]) -> Int64:
        """Chains of neighbouring fingerprints that match on one diagonal.

        Returns:
            int64[chains, 5]: first covered query token, end; earliest first token of the run,
            latest end; corpus position minus query position.
        """
        query, places = self._hits(ids)
        if not len(query):
            return np.empty((0, 5), np.int64)
        diagonal = self._positions[places] - query
        order = np.lexsort((query, diagonal))
        query, places, diagonal = query[order], places[order], diagonal[order]
        document = np.searchsorted(self._starts, self._positions[places], "right")
        continues = (np.diff(diagonal) == 0) & (np.diff(places) == 1) & (np.diff(document) == 0)
        first = np.flatnonzero(np.concatenate([[True], ~continues]))
        last = np.concatenate([first[1:], [len(query)]]) - 1
        shift = diagonal[first]
        earliest, latest = self._bounds(places[first], places[last])
        return np.stack(
            [
                query[first],
                query[last] + self.winnowing.k,
                np.maximum(earliest - shift, 0),
                np.minimum(latest - shift, len(ids)),
                shift,
            ],
            axis=1,
        )

    def _hits(self, ids: NDArray[np.int64]) -> tuple[Int64, Int64]:
        """(query position, fingerprint) of every pair with equal hashes, both int64[hits]."""
        keys = kgram_hashes(ids, self.winnowing.k) & np.uint64(self.winnowing.hash_mask)
        first = np.searchsorted(self._sorted, keys, "left")
        found = np.flatnonzero(
            self._sorted[np.minimum(first, len(self._sorted) - 1)] == keys
            if len(self._sorted)
            else np.zeros(len(keys), np.bool_)
        )
        first = first[found]
        counts = np.searchsorted(self._sorted, keys[found], "right") - first
        counts = np.minimum(counts, _MAX_PLACES)
        query = np.repeat(found, counts)
        within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        return query.astype(np.int64), self._order[np.repeat(first, counts) + within]

    def _bounds(self, first: Int64, last: Int64) -> tuple[Int64, Int64]:
        """The widest runs through fingerprints `first` to `last` that hold no other."""
        document = np.searchsorted(self._starts, self._positions[first], "right") - 1
        before = np.where(first > 0, self._positions[np.maximum(first - 1, 0)] + 1, 0)
        behind = np.minimum(last + 1, len(self._positions) - 1)
        after = np.where(
            last + 1 < len(self._positions),
            self._positions[behind] + self.winnowing.k - 1,
            self._starts[-1],
        )
        earliest = np.maximum(before, self._starts[document])
        return earliest, np.minimum(after, self._starts[document + 1])
