"""What an index of training text answers, whatever it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from memorization.ngram_filter import NgramFilter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Occurrence:
    """One place in the corpus.

    Attributes:
        document: The document's id.
        title: Its title, empty if it has none.
        source: Name of the corpus file it came from.
        offset: First token of the match, counted from the document's start.
    """

    document: str
    title: str
    source: str
    offset: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A run of query tokens that stands in the corpus word for word, and is not part of a longer.

    Attributes:
        start: First token of the run in the query.
        length: Tokens of it that are known to match.
        max_length: Tokens that may match from `start - (max_length - length)` at the earliest to
            the end at the latest; equal to `length` where an index holds the text itself.
        count: How often the run stands in the corpus; at least 1.
        occurrences: Some of those places, in corpus order.
    """

    start: int
    length: int
    max_length: int
    count: int
    occurrences: tuple[Occurrence, ...]

    @property
    def end(self) -> int:
        """One past the run's last token."""
        return self.start + self.length


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """A window of a training document that resembles a window of the query.

    Attributes:
        document: The document's id.
        title: Its title, empty if it has none.
        source: Name of the corpus file it came from.
        first_word: First word of the window, counted from the document's start.
        query_word: First word of the query's window.
        words: Words in the corpus window.
        similarity: Estimated Jaccard similarity of the two windows' shingles, in [0, 1].
    """

    document: str
    title: str
    source: str
    first_word: int
    query_word: int
    words: int
    similarity: float


class TrainingIndex(Protocol):
    """Tells what of a text was in the training data; safe to call from several threads."""

    @property
    def tokenizer_identity(self) -> str:
        """`memorization.tokenizer.tokenizer_identity` of the tokenizer it was built with."""
        ...

    @property
    def sure_tokens(self) -> int | None:
        """The shortest run that `longest_matches` is sure to find; None if it finds none."""
        ...

    def ngrams(self) -> NgramFilter | None:
        """N-grams without which a text has no long run of training tokens; None if there are none.

        May take a moment: asked once, by who generates text.
        """
        ...

    def longest_matches(
        self, tokens: Sequence[int], *, min_tokens: int = 1, max_occurrences: int = 10
    ) -> list[Span]:
        """Return every maximal run of at least ``min_tokens`` tokens that the corpus has.

        Args:
            tokens: Token ids of the query.
            min_tokens: Shortest run of interest.
            max_occurrences: Most places to name for each run.

        Raises:
            TrainingIndexError: A token id lies outside the vocabulary, or the index holds no
                such information.
            IndexUnavailableError: The index's store does not answer.
        """
        ...

    def near_duplicates(self, text: str, *, min_similarity: float = 0.5) -> list[NearDuplicate]:
        """Return corpus windows that resemble a window of ``text``, the most similar first.

        Raises:
            TrainingIndexError: The index holds no such information.
            IndexUnavailableError: The index's store does not answer.
        """
        ...
