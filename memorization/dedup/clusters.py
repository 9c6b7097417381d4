"""Clusters of near-duplicate documents: pairs by LSH, verified by Jaccard, joined by union-find."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from memorization.dedup.parameters import DedupParameters
from memorization.dedup.signing import SignedCorpus
from memorization.rolling_hash import UInt64
from memorization.signatures import band_keys

_BLOCK_DOCUMENTS = 1 << 16


class UnionFind:
    """Disjoint sets of numbers; a set is known by its smallest member."""

    def __init__(self, size: int) -> None:
        """Every number is a set of its own."""
        self._parents = list(range(size))

    def find(self, number: int) -> int:
        """The smallest member of a number's set."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parents[high] = low


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clusters:
    """Which documents are duplicates of which.

    Attributes:
        kept: First document of the cluster that each is in, int64[documents]: itself if it stays.
        similarity: Jaccard similarity with that document, float64[documents]; below the threshold
            where a chain of duplicates joins them; 1 for the same text.
        compared: Pairs whose shingles were compared.
        confirmed: Those of them that reached the threshold.
    """

    kept: NDArray[np.int64]
    similarity: NDArray[np.float64]
    compared: int
    confirmed: int

    @property
    def removed(self) -> NDArray[np.int64]:
        """Documents that a document before them stands for, ascending, int64[removed]."""
        return np.flatnonzero(self.kept != np.arange(len(self.kept)))


def jaccard(one: UInt64, other: UInt64) -> float:
    """Jaccard similarity of two ascending sets; 0 for two empty ones."""
    shared = np.intersect1d(one, other, assume_unique=True).size
    united = one.size + other.size - shared
    return float(shared / united) if united else 0.0


def find_clusters(signed: SignedCorpus, parameters: DedupParameters) -> Clusters:
    """Cluster a corpus: connected by pairs that share a band and reach the threshold.

    Documents of the same text are joined without a comparison. The result depends on nothing but
    the documents and their order.
    """
    sets = UnionFind(len(signed))
    first = _same_texts(signed, sets)
    rejected: set[tuple[int, int]] = set()
    confirmed = 0
    for one, other in _candidates(signed, parameters, first):
        # Pairs that are connected already need no comparison: the clusters would be the same.
        if (one, other) in rejected or sets.find(one) == sets.find(other):
            continue
        if _is_duplicate(signed, one, other, parameters.threshold):
            sets.join(one, other)
            confirmed += 1
        else:
            rejected.add((one, other))
    kept = np.array([sets.find(number) for number in range(len(signed))], np.int64)
    similarity = np.ones(len(signed))
    for number in np.flatnonzero((kept != np.arange(len(kept))) & (first != kept)).tolist():
        pair = signed.shingles_of(number), signed.shingles_of(int(kept[number]))
        similarity[number] = jaccard(*pair)
    return Clusters(
        kept=kept,
        similarity=similarity,
        compared=confirmed + len(rejected),
        confirmed=confirmed,
    )


def _same_texts(signed: SignedCorpus, sets: UnionFind) -> NDArray[np.int64]:
    """Join documents of the same text; the first of each, int64[documents]."""
    _, firsts, inverse = np.unique(
        np.asarray(signed.text_hashes), axis=0, return_index=True, return_inverse=True
    )
    first: NDArray[np.int64] = firsts[inverse.reshape(-1)]
    for number in np.flatnonzero(first != np.arange(len(first))).tolist():
        sets.join(number, int(first[number]))
    return first


def _is_duplicate(signed: SignedCorpus, one: int, other: int, threshold: float) -> bool:
    left, right = signed.shingles_of(one), signed.shingles_of(other)
    # No similarity is above the ratio of the sizes.
    if min(left.size, right.size) < threshold * max(left.size, right.size):
        return False
    return jaccard(left, right) >= threshold


def _candidates(
    signed: SignedCorpus, parameters: DedupParameters, first: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Pairs of documents with some band in common, the earlier first; a pair may come again."""
    sizes = np.diff(signed.shingle_ends, prepend=0)
    documents = np.flatnonzero((sizes > 0) & (first == np.arange(len(signed))))
    keys = np.empty((len(documents), parameters.banding.bands), np.uint32)
    for begin in range(0, len(documents), _BLOCK_DOCUMENTS):
        block = slice(begin, begin + _BLOCK_DOCUMENTS)
        keys[block] = band_keys(signed.signatures[documents[block]], parameters.banding)
    for band in range(parameters.banding.bands):
        order = np.argsort(keys[:, band], kind="stable")
        ordered = keys[order, band]
        borders = np.flatnonzero(np.diff(ordered)) + 1
        starts, ends = np.append(0, borders), np.append(borders, len(ordered))
        shared = ends - starts > 1
        for start, end in zip(starts[shared].tolist(), ends[shared].tolist(), strict=True):
            yield from itertools.combinations(documents[order[start:end]].tolist(), 2)
