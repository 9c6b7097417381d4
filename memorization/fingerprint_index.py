"""The text-free index: finds verbatim runs by fingerprints, without holding the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memorization.errors import TrainingIndexError
from memorization.fingerprint_file import Fingerprints, read_fingerprints
from memorization.index import NearDuplicate, Occurrence, Span
from memorization.ngram_filter import NgramFilter, empty_words, insert
from memorization.rolling_hash import UInt64, kgram_hashes
from memorization.runs import MAX_PLACES, Hits, find_spans
from memorization.suffix_array import Int64, require_ids
from memorization.winnowing import Winnowing


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
        return find_spans(
            self._hits(ids),
            self.winnowing,
            len(ids),
            self._locate,
            min_tokens=min_tokens,
            max_occurrences=max_occurrences,
        )

    def places(self, kgram_hash: int) -> Int64:
        """Indices of the fingerprints with a 64-bit hash, in corpus order, at most 1024."""
        key = np.uint64(kgram_hash & self.winnowing.hash_mask)
        first = int(np.searchsorted(self._sorted, key, "left"))
        last = int(np.searchsorted(self._sorted, key, "right"))
        return self._order[first : min(last, first + MAX_PLACES)]

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
        first, end = self._bounds(np.array([place], np.int64))
        return int(first[0]), int(end[0])

    def _locate(self, documents: Int64, offsets: Int64) -> tuple[Occurrence, ...]:
        return tuple(
            Occurrence(
                document=self._names[document][0],
                title=self._names[document][1],
                source=self._names[document][2],
                offset=offset,
            )
            for document, offset in zip(documents.tolist(), offsets.tolist(), strict=True)
        )

    def _hits(self, ids: Int64) -> Hits:
        keys = kgram_hashes(ids, self.winnowing.k) & np.uint64(self.winnowing.hash_mask)
        first = np.searchsorted(self._sorted, keys, "left")
        found = np.flatnonzero(
            self._sorted[np.minimum(first, len(self._sorted) - 1)] == keys
            if len(self._sorted)
            else np.zeros(len(keys), np.bool_)
        )
        first = first[found]
        counts = np.searchsorted(self._sorted, keys[found], "right") - first
        counts = np.minimum(counts, MAX_PLACES)
        query = np.repeat(found, counts)
        within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self._order[np.repeat(first, counts) + within]
        document = np.searchsorted(self._starts, self._positions[places], "right") - 1
        starts = self._starts[document]
        earliest, latest = self._bounds(places)
        return Hits(
            query=query.astype(np.int64),
            document=document,
            ordinal=places,
            offset=self._positions[places] - starts,
            earliest=earliest - starts,
            latest=latest - starts,
        )

    def _bounds(self, places: Int64) -> tuple[Int64, Int64]:
        """The widest runs through fingerprints that hold no other, each on its own."""
        document = np.searchsorted(self._starts, self._positions[places], "right") - 1
        before = np.where(places > 0, self._positions[np.maximum(places - 1, 0)] + 1, 0)
        behind = np.minimum(places + 1, len(self._positions) - 1)
        after = np.where(
            places + 1 < len(self._positions),
            self._positions[behind] + self.winnowing.k - 1,
            self._starts[-1],
        )
        earliest = np.maximum(before, self._starts[document])
        return earliest, np.minimum(after, self._starts[document + 1])
