"""From matching fingerprints to runs of tokens: what all indexes of fingerprints share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from memorization.index import Occurrence, Span
from memorization.suffix_array import Int64
from memorization.winnowing import Winnowing

MAX_PLACES = 1024
"""A fingerprint of front matter or a ruled line stands in a corpus thousands of times; so many of
its places are followed, the first in the corpus."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """Pairs of a k-gram of the query and a fingerprint of the corpus with the same hash.

    All are int64[hits].

    Attributes:
        query: First token of the k-gram.
        document: The fingerprint's document, counted in corpus order.
        ordinal: The fingerprint's number; those of a document are consecutive.
        offset: First token of the fingerprint, counted from the document's start.
        earliest: First token that a run through the fingerprint may have, without holding the
            fingerprint before it; likewise counted.
        latest: One past the last that it may have without holding the fingerprint behind it.
    """

    query: Int64
    document: Int64
    ordinal: Int64
    offset: Int64
    earliest: Int64
    latest: Int64

    def take(self, order: Int64) -> Hits:
        """Some of them, or all in another order."""
        return Hits(
            **{field.name: getattr(self, field.name)[order] for field in dataclasses.fields(self)}
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Chains:
    """Fingerprints one after the other that match on one diagonal; all int64[chains].

    Attributes:
        start: First covered token of the query.
        end: One past the last.
        most: Tokens that the run may have at most.
        document: The document.
        shift: Position in the document minus position in the query.
    """

    start: Int64
    end: Int64
    most: Int64
    document: Int64
    shift: Int64


Locate = Callable[[Int64, Int64], tuple[Occurrence, ...]]
"""Names places, from documents and offsets in them."""


def find_spans(
    hits: Hits,
    winnowing: Winnowing,
    query_tokens: int,
    locate: Locate,
    *,
    min_tokens: int,
    max_occurrences: int,
) -> list[Span]:
    """Maximal runs of the query, of which `max_length` is at least `min_tokens`.

    Args:
        hits: All pairs.
        winnowing: How the corpus was thinned out.
        query_tokens: Tokens of the query.
        locate: Names the places of a run.
        min_tokens: Shortest run of interest.
        max_occurrences: Most places to name for each run.
    """
    if not len(hits.query):
        return []
    chains = _chains(hits, winnowing.k, query_tokens)
    by_span: dict[tuple[int, int], list[int]] = {}
    for row, span in enumerate(zip(chains.start.tolist(), chains.end.tolist(), strict=True)):
        by_span.setdefault(span, []).append(row)
    spans: list[Span] = []
    furthest = -1
    for start, end in sorted(by_span, key=lambda span: (span[0], -span[1])):
        if end <= furthest:
            continue
        furthest = end
        longest = int(chains.most[by_span[start, end]].max())
        if longest < min_tokens:
            continue
        covering = np.flatnonzero((chains.start <= start) & (chains.end >= end))
        documents, offsets = chains.document[covering], chains.shift[covering] + start
        order = np.lexsort((offsets, documents))
        some = order[:max_occurrences]
        spans.append(
            Span(
                start=start,
                length=end - start,
                max_length=longest,
                count=len(order),
                occurrences=locate(documents[some], offsets[some]),
            )
        )
    return spans


def _chains(hits: Hits, k: int, query_tokens: int) -> _Chains:
    shift = hits.offset - hits.query
    order = np.lexsort((hits.query, shift, hits.document))
    hits, shift = hits.take(order), shift[order]
    continues = (np.diff(hits.document) == 0) & (np.diff(shift) == 0) & (np.diff(hits.ordinal) == 1)
    first = np.flatnonzero(np.concatenate([[True], ~continues]))
    last = np.concatenate([first[1:], [len(shift)]]) - 1
    shift = shift[first]
    earliest = np.maximum(hits.earliest[first] - shift, 0)
    latest = np.minimum(hits.latest[last] - shift, query_tokens)
    return _Chains(
        start=hits.query[first],
        end=hits.query[last] + k,
        most=latest - earliest,
        document=hits.document[first],
        shift=shift,
    )
