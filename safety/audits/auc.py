"""Areas under the ROC curve with intervals, and what Borkan et al. make of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from safety.audits.report import Estimate
from safety.audits.statistics import CONFIDENCE

POWER = -5.0
"""The exponent of the generalized mean: weak groups count most (Borkan et al. 2019)."""


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Estimate:
    """The probability that a positive scores higher than a negative, ties counting half.

    The interval is DeLong's (1988), by the midranks of Sun and Xu (2014), on the logit scale so
    that it stays in [0, 1].

    Args:
        positive: float64[positives], scores of toxic texts.
        negative: float64[negatives], scores of the others.
    """
    m, n = positive.size, negative.size
    if min(m, n) == 0:
        return Estimate(float("nan"), n=m + n)
    together = scipy.stats.rankdata(np.concatenate([positive, negative]))
    of_positive = (together[:m] - scipy.stats.rankdata(positive)) / n
    of_negative = 1 - (together[m:] - scipy.stats.rankdata(negative)) / m
    value = float(of_positive.mean())
    if min(m, n) < 2 or not 0 < value < 1:
        return Estimate(value, n=m + n)
    deviation = float(np.sqrt(of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n))
    logit = float(np.log(value / (1 - value)))
    half = float(scipy.stats.norm.ppf((1 + CONFIDENCE) / 2)) * deviation / (value * (1 - value))
    low, high = (1 / (1 + np.exp(-(logit + side))) for side in (-half, half))
    return Estimate(value, float(low), float(high), m + n)


def subgroup_aucs(
    scores: NDArray[np.float64], is_toxic: NDArray[np.bool_], in_group: NDArray[np.bool_]
) -> dict[str, Estimate]:
    """Borkan et al.'s three: within the group, and against the background, both ways round.

    `bpsn` (background positive, subgroup negative) is low where innocent texts about the group
    score like toxic ones; `bnsp` where toxic texts about it score like innocent ones.
    """
    inside, outside = scores[in_group], scores[~in_group]
    toxic_inside, toxic_outside = is_toxic[in_group], is_toxic[~in_group]
    return {
        "subgroup": auc(inside[toxic_inside], inside[~toxic_inside]),
        "bpsn": auc(outside[toxic_outside], inside[~toxic_inside]),
        "bnsp": auc(inside[toxic_inside], outside[~toxic_outside]),
    }


def power_mean(values: Sequence[float]) -> float:
    """The generalized mean with exponent -5 of the known values; NaN if there are none."""
    known = np.array([value for value in values if value == value])
    if known.size == 0:
        return float("nan")
    if (known <= 0).any():
        return 0.0
    return float(np.mean(known**POWER) ** (1 / POWER))


def overall_bias_score(overall: float, parts: Sequence[float]) -> float:
    """A quarter each of the overall AUC and the three power means (Borkan et al. 2019)."""
    return float(np.mean([overall, *parts]))


def roc(
    scores: NDArray[np.float64], is_toxic: NDArray[np.bool_], points: int = 200
) -> tuple[list[float], list[float]]:
    """False and true positive rates at thresholds from the highest to the lowest."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_toxic[order]) / max(1, int(is_toxic.sum()))
    alarms = np.cumsum(~is_toxic[order]) / max(1, int((~is_toxic).sum()))
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    x, y = np.append(0.0, alarms[last_of_ties]), np.append(0.0, hits[last_of_ties])
    kept = np.unique(np.linspace(0, x.size - 1, min(points, x.size)).astype(int))
    return [float(value) for value in x[kept]], [float(value) for value in y[kept]]
