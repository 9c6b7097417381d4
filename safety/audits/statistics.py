"""Intervals and tests, the same for every audit. All intervals are at 95 %.

The bootstrap resamples prompts, never single continuations: those of one prompt are alike, and
to count each as evidence of its own would make intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from safety.audits.report import Estimate

CONFIDENCE = 0.95
RESAMPLES = 2000
PERMUTATIONS = 9999
_BATCH_VALUES = 4_000_000


def mean(values: ArrayLike, seed: int) -> Estimate:
    """Mean of one value a prompt, with a percentile bootstrap interval over prompts.

    Values that are all alike have no interval: resampled they always give the same, which says
    nothing of how far the mean may be from it.

    Args:
        values: float[prompts]; NaN is a prompt without a value.
        seed: Of the resampling.
    """
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    if array.size == 0:
        return Estimate(float("nan"), n=0)
    value = float(array.mean())
    if array.min() == array.max():
        return Estimate(value, n=int(array.size))
    interval = scipy.stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_VALUES // array.size),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), int(array.size))


def statistic(
    groups: Sequence[NDArray[np.float64]],
    function: Callable[..., float],
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Any statistic of samples that are resampled apart, with a percentile interval.

    Args:
        groups: One array for each sample; resampled along its first axis.
        function: From resampled arrays to a number, which may be NaN.
        seed: Of the resampling.
        resamples: How many resamples are drawn.
    """
    n = sum(len(group) for group in groups)
    if min((len(group) for group in groups), default=0) == 0:
        return Estimate(float("nan"), n=n)
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for index in range(resamples):
        drawn[index] = function(
            *(group[rng.integers(0, len(group), len(group))] for group in groups)
        )
    drawn = drawn[~np.isnan(drawn)]
    value = float(function(*groups))
    if drawn.size < resamples / 2:
        return Estimate(value, n=n)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), n)


def rate(successes: int, n: int) -> Estimate:
    """A share of independent things, with Wilson's score interval."""
    if n == 0:
        return Estimate(float("nan"), n=0)
    test = scipy.stats.binomtest(int(successes), n)
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def rate_of(values: ArrayLike) -> Estimate:
    """`rate` of an array of booleans."""
    array = np.asarray(values, bool)
    return rate(int(array.sum()), array.size)


def rate_difference(one: ArrayLike, other: ArrayLike) -> Estimate:
    """Share of one sample minus that of another, independent one.

    The interval is Newcombe's, from Wilson's of both shares (Newcombe 1998, Interval estimation
    for the difference between independent proportions, method 10).

    Args:
        one: bool[n].
        other: bool[m].
    """
    first, second = rate_of(one), rate_of(other)
    n = (first.n or 0) + (second.n or 0)
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value, n=n)
    return Estimate(
        value,
        value - float(np.hypot(first.value - first.low, second.high - second.value)),
        value + float(np.hypot(first.high - first.value, second.value - second.low)),
        n,
    )


def difference_p(one: ArrayLike, other: ArrayLike, seed: int) -> float:
    """Two-sided p-value that two independent groups have the same mean, by permutation.

    NaN where a group has less than two values: one value is no evidence about a group.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if min(first.size, second.size) < 2:
        return float("nan")
    size = first.size + second.size
    result = scipy.stats.permutation_test(
        (first, second),
        _mean_difference,
        permutation_type="independent",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, _BATCH_VALUES // size),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def paired_p(one: ArrayLike, other: ArrayLike, seed: int) -> float:
    """Two-sided p-value that paired values have the same mean, by flipping signs."""
    differences = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    differences = differences[~np.isnan(differences)]
    if differences.size < 2:
        return float("nan")
    if not differences.any():
        return 1.0
    result = scipy.stats.permutation_test(
        (differences,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, _BATCH_VALUES // differences.size),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def corrected(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjustment across comparisons; NaN stays and does not count."""
    array = np.asarray(p_values, np.float64)
    known = ~np.isnan(array)
    if known.any():
        array[known] = scipy.stats.false_discovery_control(array[known], method="bh")
    return [float(value) for value in array]


def correlation(x: ArrayLike, y: ArrayLike) -> tuple[Estimate, float]:
    """Pearson's r with Fisher's interval, and its p-value."""
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Estimate(float("nan"), n=int(first.size)), float("nan")
    result = scipy.stats.pearsonr(first, second)
    interval = result.confidence_interval(CONFIDENCE) if first.size > 3 else None
    estimate = Estimate(
        float(result.statistic),
        None if interval is None else float(interval.low),
        None if interval is None else float(interval.high),
        int(first.size),
    )
    return estimate, float(result.pvalue)


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.mean(values, axis=axis))


def _mean_difference(
    one: NDArray[np.float64], other: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    return np.asarray(np.mean(one, axis=axis) - np.mean(other, axis=axis))
