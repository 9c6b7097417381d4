"""Passages that a model continued, and the rates at which it recites them."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from memorization.studies.likeness import MAX_EDITS, MIN_BLEU, Likeness
from memorization.studies.occurrences import log_bin
from memorization.studies.passages import Passage
from safety.audits import statistics
from safety.audits.report import Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A passage with one prompt length, and what the model made of it."""

    set_name: str
    passage: Passage
    count: int | None
    prompt_tokens: int
    prompt: str
    text: str
    likeness: Likeness


MEASURES: dict[str, Callable[[Measured], bool]] = {
    "exact": lambda one: one.likeness.is_exact,
    "near_by_edits": lambda one: one.likeness.is_near_by_edits,
    "near_by_bleu": lambda one: one.likeness.is_near_by_bleu,
}
TITLES = {
    "exact": "Exact",
    "near_by_edits": f"Edits ≤ {MAX_EDITS:.0%}".replace("%", " %"),
    "near_by_bleu": f"BLEU > {MIN_BLEU}",
}


def of_set(measured: Iterable[Measured], set_name: str, length: int) -> list[Measured]:
    """Those of one corpus and one prompt length."""
    return [one for one in measured if (one.set_name, one.prompt_tokens) == (set_name, length)]


def rates_of(some: Sequence[Measured]) -> dict[str, Estimate]:
    """Share that is recited by each of `MEASURES`."""
    return {
        name: statistics.rate_of([holds(one) for one in some]) for name, holds in MEASURES.items()
    }


def rates_to_json(rates: dict[str, Estimate]) -> dict[str, Any]:
    """For `summary.json`."""
    return {name: estimate.to_json() for name, estimate in rates.items()}


def by_bin(some: Iterable[Measured]) -> dict[int, list[Measured]]:
    """Passages by the bin of their occurrences, where they were counted."""
    found: defaultdict[int, list[Measured]] = defaultdict(list)
    for one in some:
        if one.count is not None:
            found[log_bin(one.count)].append(one)
    return dict(sorted(found.items()))


def by_document(some: Iterable[Measured]) -> list[tuple[str, list[Measured]]]:
    """Documents, the most recited first, then those with the most passages."""
    found: defaultdict[str, list[Measured]] = defaultdict(list)
    for one in some:
        title, document = one.passage.title, one.passage.document
        found[f"{title} ({document})" if title and title != document else document].append(one)

    def rank(item: tuple[str, list[Measured]]) -> tuple[int, int, int, str]:
        sums = [sum(holds(one) for one in item[1]) for holds in MEASURES.values()]
        return -sums[0], -sums[1] - sums[2], -len(item[1]), item[0]

    return sorted(found.items(), key=rank)
