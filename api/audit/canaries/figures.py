"""What every model made of the canaries, and its figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from api.audit.canaries.laws import Law
from memorization.studies.likeness import MAX_EDITS
from safety.audits import statistics
from safety.audits.report import LineFigure, Series

_CURVE_POINTS = 60
_LINES_BY_SIZE = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A model and what it made of the canaries.

    Attributes:
        shape: Its name.
        parameters: Its parameters.
        rows: One for each canary, in one order for all models: those of `audit memorization`.
    """

    shape: str
    parameters: int
    rows: Sequence[Mapping[str, Any]]

    def answers(self, repetitions: int, *, nearly: bool = False) -> list[bool]:
        """Whether each canary of so many repetitions was recited."""
        return [
            row["edits"] <= MAX_EDITS if nearly else row["is_exact"]
            for row in self.rows
            if row["occurrences"] == repetitions
        ]

    @property
    def title(self) -> str:
        """As people read it."""
        return f"{self.parameters / 1e6:.2g} M"


def repetitions_of(asked: Sequence[Asked]) -> list[int]:
    """The numbers of repetitions, rising."""
    return sorted({row["occurrences"] for row in asked[0].rows})


def repetitions_figure(asked: Sequence[Asked], law: Law) -> LineFigure:
    """Rates by repetitions, a series for each model, with the law."""
    times = [number for number in repetitions_of(asked) if number]
    curve = np.geomspace(times[0], times[-1], _CURVE_POINTS).tolist()
    return LineFigure(
        title="Recited canaries by repetitions",
        caption=(
            "Points: share of canaries that come back exactly, with Wilson's 95 % intervals. "
            "Lines: a logistic curve for each model."
        ),
        x_label="Times that a canary stood in the training text",
        y_label="Share recited exactly",
        series=[
            Series(
                name=f"{one.title} parameters",
                x=times,
                y=[statistics.rate_of(one.answers(each)) for each in times],
                curve=[(x, law.own_share(x, number)) for x in curve],
            )
            for number, one in enumerate(asked)
        ],
        x_range=(times[0] / 1.15, times[-1] * 1.15),
        y_range=(-0.02, 1.02),
        has_log_x=True,
    )


def size_figure(asked: Sequence[Asked], law: Law) -> LineFigure:
    """Rates by size, a series for each number of repetitions around which they rise."""
    sizes = [one.parameters for one in asked]
    curve = np.geomspace(min(sizes), max(sizes), _CURVE_POINTS).tolist()
    rates = {
        times: [statistics.rate_of(one.answers(times)) for one in asked]
        for times in repetitions_of(asked)
        if times
    }
    spread = {
        times: max(r.value for r in some) - min(r.value for r in some)
        for times, some in rates.items()
    }
    shown = sorted(sorted(rates, key=lambda times: -spread[times])[:_LINES_BY_SIZE])
    return LineFigure(
        title="Recited canaries by size",
        caption=(
            f"Points as before, for the {len(shown)} numbers of repetitions in which the models "
            "differ most. Lines: the one logistic law of all models."
        ),
        x_label="Parameters",
        y_label="Share recited exactly",
        series=[
            Series(
                name=f"{times} times",
                x=sizes,
                y=rates[times],
                curve=[(x, law.share(times, int(x))) for x in curve],
            )
            for times in shown
        ],
        x_range=(min(sizes) / 1.2, max(sizes) * 1.2),
        y_range=(-0.02, 1.02),
        has_log_x=True,
    )
