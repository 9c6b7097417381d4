"""How reciting grows with repetitions and size: lines and a logistic law, with their uncertainty.

Carlini et al. (2022) found the share of recited text about linear in the logarithms of repetitions
and of parameters. A share ends at 0 and 1, which a line does not: beside the slopes of lines, the
logistic law

    log odds = a + b log2(repetitions) + c log10(parameters)

is fitted, which is such a line wherever the share is neither. Intervals are at 95 %, by resampling
canaries within their repetitions; a canary goes with its answers of all models, as they saw the
same text in the same order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from safety.audits import statistics
from safety.audits.report import Estimate

Answers: TypeAlias = NDArray[np.float64]
"""1 where a model recited a canary, and 0 where not, float64[canaries, models]."""

_RIDGE = 1e-3  # keeps the law finite where a resample has only 0 and 1
_NEWTON_STEPS = 50
_CONVERGED = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What every model recited.

    Attributes:
        parameters: Of each model.
        answers: By repetitions, rising, from 1 on.
    """

    parameters: tuple[int, ...]
    answers: dict[int, Answers]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """The logistic law.

    Attributes:
        coefficients: (a, b, c).
        odds_per_doubling: Factor on the odds when a text is seen twice as often, exp(b).
        odds_per_tenfold: Factor on the odds in a model of ten times the size, exp(c); None for a
            single model.
        halves: For each model, how often a text must be seen for a chance of one half; NaN where
            the law puts that outside of the repetitions that were tried.
    """

    coefficients: tuple[float, float, float]
    odds_per_doubling: Estimate
    odds_per_tenfold: Estimate | None
    halves: tuple[Estimate, ...]

    def share(self, repetitions: float, parameters: int) -> float:
        """The share that the law expects."""
        a, b, c = self.coefficients
        return 1 / (1 + math.exp(-(a + b * math.log2(repetitions) + c * math.log10(parameters))))


def slope_in_repetitions(outcomes: Outcomes, model: int, seed: int) -> Estimate:
    """Share of canaries that each doubling of the repetitions adds, by least squares.

    Every number of repetitions weighs the same, whatever the number of its canaries.
    """
    logs = np.log2(list(outcomes.answers))

    def slope(*answers: Answers) -> float:
        return _slope(logs, [one[:, model].mean() for one in answers])

    return statistics.statistic(_groups(outcomes), slope, seed)


def slope_in_size(outcomes: Outcomes, seed: int) -> Estimate:
    """Share of canaries that a tenfold size adds, mean over the repetitions."""
    logs = np.log10(outcomes.parameters)

    def slope(*answers: Answers) -> float:
        return _slope(logs, np.mean([one.mean(axis=0) for one in answers], axis=0))

    return statistics.statistic(_groups(outcomes), slope, seed)


def logistic_law(outcomes: Outcomes, seed: int) -> Law:
    """Fit the law; a single model has no c."""
    repetitions = np.log2(list(outcomes.answers))
    sizes = np.log10(outcomes.parameters)

    first, last = min(outcomes.answers), max(outcomes.answers)
    known: dict[bytes, NDArray[np.float64]] = {}

    def fitted(*answers: Answers) -> NDArray[np.float64]:
        # Every estimate is made from the same resamples.
        hits = np.stack([one.sum(axis=0) for one in answers])
        key = hits.tobytes()
        if key not in known:
            known[key] = _fit(repetitions, sizes, [len(one) for one in answers], hits)
        return known[key]

    def estimate(pick: int, model: int | None = None) -> Estimate:
        def value(*answers: Answers) -> float:
            a, b, c = fitted(*answers)
            if model is None:
                return float(np.exp((b, c)[pick]))
            half = 2 ** min(float(-(a + c * sizes[model]) / b), 1000.0) if b > 0 else math.inf
            return half if first <= half <= last else math.nan

        return statistics.statistic(_groups(outcomes), value, seed)

    groups = _groups(outcomes)
    a, b, c = fitted(*groups)
    return Law(
        coefficients=(float(a), float(b), float(c)),
        odds_per_doubling=estimate(0),
        odds_per_tenfold=estimate(1) if len(sizes) > 1 else None,
        halves=tuple(estimate(0, model) for model in range(len(sizes))),
    )


def _groups(outcomes: Outcomes) -> list[Answers]:
    return list(outcomes.answers.values())


def _slope(x: NDArray[np.float64], y: Sequence[float] | NDArray[np.float64]) -> float:
    centered = x - x.mean()
    return float(centered @ np.asarray(y) / (centered @ centered))


def _fit(
    repetitions: NDArray[np.float64],
    sizes: NDArray[np.float64],
    counts: Sequence[int],
    recited: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(a, b, c) of greatest likelihood, by Newton's method, float64[3].

    Args:
        repetitions: Their logarithms, float64[repetitions].
        sizes: Logarithms of the models' parameters, float64[models].
        counts: Canaries of each number of repetitions.
        recited: How many of them came back, float64[repetitions, models].
    """
    n = np.repeat(np.asarray(counts, np.float64), len(sizes))
    hits = recited.reshape(-1)
    # Centred, so that the ridge pulls towards no effect and not towards a share of one half.
    middle = sizes.mean()
    x = np.stack(
        [
            np.ones(len(n)),
            np.repeat(repetitions, len(sizes)),
            np.tile(sizes - middle, len(repetitions)),
        ],
        axis=1,
    )
    weights = np.zeros(3)
    ridge = _RIDGE * np.eye(3)
    for _ in range(_NEWTON_STEPS):
        share = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (hits - n * share) - ridge @ weights
        curvature = (x.T * (n * share * (1 - share))) @ x + ridge
        step = np.linalg.solve(curvature, gradient)
        # A full step from far away may overshoot to where all shares are 0 or 1.
        weights += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < _CONVERGED:
            break
    a, b, c = weights
    return np.array([a - c * middle, b, c])
