"""How often a passage stands in a corpus, and the logarithmic bins that rates are shown in."""

from __future__ import annotations

from collections.abc import Sequence

from memorization.index import TrainingIndex


def occurrences(index: TrainingIndex, tokens: Sequence[int]) -> int:
    """How often a run of tokens stands in the corpus whole.

    Of an index of fingerprints, the run may differ at its ends by as much as fingerprints leave
    open there.

    Raises:
        TrainingIndexError: The index holds no such information.
        IndexUnavailableError: Its store does not answer.
    """
    spans = index.longest_matches(tokens, min_tokens=1, max_occurrences=1)
    return max((span.count for span in spans if span.max_length >= len(tokens)), default=0)


def log_bin(count: int) -> int:
    """0 for none, then 1, 2-3, 4-7, 8-15 and so on as 1, 2, 3, 4."""
    return count.bit_length()


def bin_name(number: int) -> str:
    """A bin of `log_bin` as people write it."""
    if number <= 1:
        return str(number)
    return f"{1 << (number - 1)}-{(1 << number) - 1}"
