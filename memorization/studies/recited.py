"""Which parts of a text an index has, laid out along the text for people to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from memorization.index import Span, TrainingIndex
from memorization.studies.passages import StudyTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a text.

    Attributes:
        text: The part.
        tokens: How many tokens of it are shown as recited.
        span: What the index has of it; None if nothing.
    """

    text: str
    tokens: int
    span: Span | None


def traced_parts(
    text: str, tokenizer: StudyTokenizer, index: TrainingIndex, *, min_tokens: int
) -> list[Part]:
    """A text in parts that join to it, each in the corpus word for word or not.

    Runs may overlap: the longest is shown whole, and of the others what is left at its sides, if
    that is long enough.

    Args:
        text: What a model said.
        tokenizer: The index's.
        index: The training text.
        min_tokens: Shortest run of interest.

    Raises:
        TrainingIndexError: The index holds no such information.
        IndexUnavailableError: Its store does not answer.
    """
    tokens = list(tokenizer.encode(text))
    spans = index.longest_matches(tokens, min_tokens=min_tokens, max_occurrences=3)
    parts: list[Part] = []
    place, written = 0, 0
    for start, end, span in _apart(spans, min_tokens):
        for stop, owner in ((start, None), (end, span)):
            # Of a decoded beginning, so that a token of half a character is part of the next.
            reached = max(written, len(tokenizer.decode(tokens[:stop])))
            if reached > written:
                parts.append(Part(text=text[written:reached], tokens=stop - place, span=owner))
            place, written = stop, reached
    if written < len(text):
        parts.append(Part(text=text[written:], tokens=len(tokens) - place, span=None))
    return parts


def _apart(spans: Sequence[Span], min_tokens: int) -> list[tuple[int, int, Span]]:
    """Spans without overlaps, (start, end, span) in order."""
    taken: list[tuple[int, int, Span]] = []
    for span in sorted(spans, key=lambda one: (-one.length, one.start)):
        start, end = span.start, span.end
        for low, high, _ in taken:
            # Maximal runs do not contain each other: an overlap is at one side.
            if low <= start < high:
                start = high
            if low < end <= high:
                end = low
        if end - start >= min_tokens:
            taken.append((start, end, span))
    return sorted(taken, key=lambda one: one[0])
