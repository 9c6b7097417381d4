"""How reciting grows with repetitions and size: lines and a logistic law, with their uncertainty.

Carlini et al. (2022) found the share of recited text about linear in the logarithms of repetitions
and of parameters. A share ends at 0 and 1, which a line does not: beside the slopes of lines, the
logistic law

    log odds = a + b log2(repetitions) + c log10(parameters)

is fitted, which is such a line wherever the share is neither; and for each model a logistic curve
of its own, so that it shows where one law for all does not fit. Intervals are at 95 %, by
resampling canaries within their repetitions; a canary goes with its answers of all models, as they
saw the same text in the same order.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import scipy.stats
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
        repetitions_per_tenfold: Factor by which a model of ten times the size needs fewer
            repetitions for the same share, 2^(c / b); None for a single model.
        misfit_p: p-value of a likelihood-ratio test of one law for all models against a curve for
            each; None for a single model.
        curves: (a, b) of each model's own curve.
        halves: For each model's own curve, how often a text must be seen for a chance of one half;
            NaN where that is outside of the repetitions that were tried.
    """

    coefficients: tuple[float, float, float]
    odds_per_doubling: Estimate
    repetitions_per_tenfold: Estimate | None
    misfit_p: float | None
    curves: tuple[tuple[float, float], ...]
    halves: tuple[Estimate, ...]

    def share(self, repetitions: float, parameters: int) -> float:
        """The share that the law of all models expects."""
        a, b, c = self.coefficients
        return _share(a + b * math.log2(repetitions) + c * math.log10(parameters))

    def own_share(self, repetitions: float, model: int) -> float:
        """The share that a model's own curve expects."""
        a, b = self.curves[model]
        return _share(a + b * math.log2(repetitions))


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
    """Fit the law of all models, and each one's own curve."""
    fits = _Fits(outcomes)
    groups = _groups(outcomes)
    models = range(len(outcomes.parameters))
    is_alone = len(models) == 1
    first, last = min(outcomes.answers), max(outcomes.answers)

    def doubling(*answers: Answers) -> float:
        return float(np.exp(fits.law(answers)[1]))

    def tenfold(*answers: Answers) -> float:
        _, b, c = fits.law(answers)
        return float(2 ** (c / b)) if b > 0 else math.nan

    def half(model: int, *answers: Answers) -> float:
        a, b = fits.curve(answers, model)
        if b <= 0:
            return math.nan
        found = float(2 ** min(-a / b, 1000.0))
        return found if first <= found <= last else math.nan

    a, b, c = fits.law(groups).tolist()
    return Law(
        coefficients=(a, b, c),
        odds_per_doubling=statistics.statistic(groups, doubling, seed),
        repetitions_per_tenfold=None if is_alone else statistics.statistic(groups, tenfold, seed),
        misfit_p=None if is_alone else fits.misfit_p(groups),
        curves=tuple(fits.curve(groups, model) for model in models),
        halves=tuple(
            statistics.statistic(groups, functools.partial(half, model), seed) for model in models
        ),
    )


class _Fits:
    """Fits to resamples; each is fitted once, as every estimate is made from the same ones."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._repetitions = np.log2(list(outcomes.answers))
        self._sizes = np.log10(outcomes.parameters)
        self._known: dict[tuple[int | None, bytes], NDArray[np.float64]] = {}

    def law(self, answers: Sequence[Answers]) -> NDArray[np.float64]:
        """(a, b, c) of the law of all models."""
        return self._fit(answers, None)

    def curve(self, answers: Sequence[Answers], model: int) -> tuple[float, float]:
        """(a, b) of a model's own curve."""
        a, b, c = self._fit(answers, model).tolist()
        return a + c * float(self._sizes[model]), b

    def misfit_p(self, answers: Sequence[Answers]) -> float:
        """Of a likelihood-ratio test of the law against the curves."""
        a, b, c = self.law(answers)
        gain = 0.0
        for model, size in enumerate(self._sizes.tolist()):
            own_a, own_b = self.curve(answers, model)
            hits = [one[:, model] for one in answers]
            gain += _log_likelihood(own_a + own_b * self._repetitions, hits)
            gain -= _log_likelihood(a + b * self._repetitions + c * size, hits)
        freedom = 2 * len(self._sizes) - 3
        return float(scipy.stats.chi2.sf(2 * max(0.0, gain), freedom))

    def _fit(self, answers: Sequence[Answers], model: int | None) -> NDArray[np.float64]:
        some = slice(None) if model is None else slice(model, model + 1)
        hits = np.stack([one[:, some].sum(axis=0) for one in answers])
        key = model, hits.tobytes()
        if key not in self._known:
            counts = [len(one) for one in answers]
            self._known[key] = _fit(self._repetitions, self._sizes[some], counts, hits)
        return self._known[key]


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, log_odds)))


def _log_likelihood(log_odds: NDArray[np.float64], hits: Sequence[NDArray[np.float64]]) -> float:
    """Of answers whose log odds are given by their repetitions."""
    return -sum(
        float(np.logaddexp(0, np.where(one > 0, -odds, odds)).sum())
        for odds, one in zip(log_odds.tolist(), hits, strict=True)
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
