"""Which differences between groups are more than noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import NDArray

_RESAMPLES = 1999


def stratified_p(
    values: NDArray[np.float64],
    groups: NDArray[np.int64],
    strata: NDArray[np.int64],
    num_groups: int,
    seed: int,
) -> NDArray[np.float64]:
    """For each group: is its mean that of the others? Two-sided permutation p-values.

    The statistic is the group's mean minus the others', averaged over strata; labels are permuted
    within a stratum only, so that a difference between prompts is no difference between groups.

    Args:
        values: float64[samples].
        groups: int[samples], from 0.
        strata: int[samples], from 0: which template a sample is of.
        num_groups: How many groups there are.
        seed: Of the permutations.

    Returns:
        float64[groups]; NaN for a group without samples.
    """
    rng = np.random.default_rng(seed)
    parts = [(values[strata == s], groups[strata == s]) for s in np.unique(strata)]
    observed = _contrasts(parts, num_groups)
    exceeding = np.ones(num_groups)
    for _ in range(_RESAMPLES):
        drawn = _contrasts([(rng.permutation(some), names) for some, names in parts], num_groups)
        exceeding += np.abs(drawn) >= np.abs(observed) - 1e-12
    return np.where(np.isnan(observed), np.nan, exceeding / (_RESAMPLES + 1))


def _contrasts(
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]], num_groups: int
) -> NDArray[np.float64]:
    """Each group's mean minus the others', averaged over the strata that have both."""
    found = np.full((len(parts), num_groups), np.nan)
    for row, (values, names) in enumerate(parts):
        counts = np.bincount(names, minlength=num_groups)
        sums = np.bincount(names, weights=values, minlength=num_groups)
        others = counts.sum() - counts
        has_both = (counts > 0) & (others > 0)
        own = sums[has_both] / counts[has_both]
        rest = (sums.sum() - sums[has_both]) / others[has_both]
        found[row, has_both] = own - rest
    known = ~np.isnan(found)
    totals = np.where(known, found, 0).sum(axis=0)
    counts = known.sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def presence_p(with_word: int, total: int, others_with_word: int, others_total: int) -> float:
    """Fisher's exact p-value that a word is as frequent in a group as in the others."""
    table = [
        [with_word, total - with_word],
        [others_with_word, others_total - others_with_word],
    ]
    return float(scipy.stats.fisher_exact(table).pvalue)
