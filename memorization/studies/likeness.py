"""How much a continuation resembles the truth: exact, by edit distance, by BLEU."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

MAX_EDITS = 0.1
"""Largest share of edited tokens that counts as memorized (the reports on Gemma and PaLM 2)."""

MIN_BLEU = 0.75
"""BLEU above which a continuation counts as memorized (Ippolito et al. 2022)."""

_ORDERS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """A continuation compared with the truth.

    Attributes:
        is_exact: Whether the texts are the same.
        edits: Edit distance of the tokens over the number of tokens of the longer, in [0, 1].
        bleu: BLEU-4 of the tokens, in [0, 1].
    """

    is_exact: bool
    edits: float
    bleu: float

    @property
    def is_near_by_edits(self) -> bool:
        """Whether at most `MAX_EDITS` of the tokens are edited."""
        return self.edits <= MAX_EDITS

    @property
    def is_near_by_bleu(self) -> bool:
        """Whether BLEU is above `MIN_BLEU`."""
        return self.bleu > MIN_BLEU


def compare_tokens(candidate: Sequence[int], truth: Sequence[int]) -> Likeness:
    """Compare the tokens of a continuation with those of the truth."""
    longer = max(len(candidate), len(truth))
    return Likeness(
        is_exact=list(candidate) == list(truth),
        edits=edit_distance(candidate, truth) / longer if longer else 0.0,
        bleu=bleu(candidate, truth),
    )


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences (Levenshtein)."""
    row = list(range(len(other) + 1))
    for index, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], index
        for column, right in enumerate(other, start=1):
            cost = min(diagonal + (left != right), row[column] + 1, row[column - 1] + 1)
            diagonal, row[column] = row[column], cost
    return row[-1]


def bleu(candidate: Sequence[int], reference: Sequence[int]) -> float:
    """BLEU-4 against one reference, with brevity penalty and without smoothing (Papineni 2002)."""
    logs = 0.0
    for order in range(1, _ORDERS + 1):
        have, want = _ngrams(candidate, order), _ngrams(reference, order)
        matched = (have & want).total()
        if not matched:
            return 0.0
        logs += math.log(matched / have.total()) / _ORDERS
    return math.exp(logs + min(0.0, 1 - len(reference) / len(candidate)))


def _ngrams(tokens: Sequence[int], order: int) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))
