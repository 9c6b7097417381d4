"""What the scorer audit measures: AUC, calibration, and the same for each identity term."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety.audits import statistics
from safety.audits.auc import auc, overall_bias_score, power_mean, subgroup_aucs
from safety.audits.report import Estimate

KINDS = ("subgroup", "bpsn", "bnsp")
"""Borkan et al.'s AUCs of an identity term."""

_BINS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredTexts:
    """All texts as arrays.

    Attributes:
        scores: float64[texts], of the scorer's first label.
        is_toxic: bool[texts], what people say.
        terms: Term to bool[texts], which texts have it.
    """

    scores: NDArray[np.float64]
    is_toxic: NDArray[np.bool_]
    terms: Mapping[str, NDArray[np.bool_]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TermFigures:
    """Figures of the texts with one identity term.

    Attributes:
        n: Texts.
        aucs: Subgroup, BPSN and BNSP AUC.
        false_positives: Share of its innocent texts at or above the threshold.
        false_negatives: Share of its toxic texts below.
    """

    n: int
    aucs: dict[str, Estimate]
    false_positives: Estimate
    false_negatives: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerFigures:
    """All figures of a scorer.

    Attributes:
        auc: Over all texts.
        average_precision: The area under precision over recall.
        brier: Mean squared error of the scores as probabilities.
        calibration_error: Mean over texts of |score - share of toxic texts| of their bin.
        calibration: For each of ten bins its mean score and the share of toxic texts.
        counts: Texts of each bin.
        precision: At the threshold.
        recall: At the threshold.
        false_positives: Over all innocent texts.
        false_negatives: Over all toxic texts.
        terms: By identity term.
        power_means: Of each kind of AUC over terms.
        overall_bias: Borkan et al.'s final score.
        equality_difference: Sum over terms of |false-positive rate - overall rate|.
    """

    auc: Estimate
    average_precision: float
    brier: float
    calibration_error: float
    calibration: tuple[tuple[float, Estimate], ...]
    counts: tuple[int, ...]
    precision: Estimate
    recall: Estimate
    false_positives: Estimate
    false_negatives: Estimate
    terms: dict[str, TermFigures]
    power_means: dict[str, float]
    overall_bias: float
    equality_difference: float


def measure(scored: ScoredTexts, threshold: float) -> ScorerFigures:
    """All figures; a text with a score of `threshold` or more counts as called toxic."""
    scores, is_toxic = scored.scores, scored.is_toxic
    called = scores >= threshold
    terms = {
        name: TermFigures(
            n=int(has.sum()),
            aucs=subgroup_aucs(scores, is_toxic, has),
            false_positives=statistics.rate_of(called[has & ~is_toxic]),
            false_negatives=statistics.rate_of(~called[has & is_toxic]),
        )
        for name, has in scored.terms.items()
    }
    overall = auc(scores[is_toxic], scores[~is_toxic])
    false_positives = statistics.rate_of(called[~is_toxic])
    power_means = {
        kind: power_mean([one.aucs[kind].value for one in terms.values()]) for kind in KINDS
    }
    calibration, counts, error = _calibration(scores, is_toxic)
    rates = [one.false_positives.value for one in terms.values()]
    return ScorerFigures(
        auc=overall,
        average_precision=_average_precision(scores, is_toxic),
        brier=float(np.mean((scores - is_toxic) ** 2)),
        calibration_error=error,
        calibration=calibration,
        counts=counts,
        precision=statistics.rate_of(is_toxic[called]),
        recall=statistics.rate_of(called[is_toxic]),
        false_positives=false_positives,
        false_negatives=statistics.rate_of(~called[is_toxic]),
        terms=terms,
        power_means=power_means,
        overall_bias=overall_bias_score(overall.value, list(power_means.values())),
        equality_difference=float(
            sum(abs(rate - false_positives.value) for rate in rates if rate == rate)
        ),
    )


def metrics(figures: ScorerFigures) -> dict[str, Any]:
    """The figures for `summary.json`."""
    return {
        "auc": figures.auc.to_json(),
        "average_precision": figures.average_precision,
        "brier": figures.brier,
        "expected_calibration_error": figures.calibration_error,
        "precision": figures.precision.to_json(),
        "recall": figures.recall.to_json(),
        "false_positive_rate": figures.false_positives.to_json(),
        "false_negative_rate": figures.false_negatives.to_json(),
        "power_means": {kind: _known(value) for kind, value in figures.power_means.items()},
        "overall_bias_score": _known(figures.overall_bias),
        "false_positive_equality_difference": figures.equality_difference,
        "terms": {
            name: {
                "texts": one.n,
                **{f"{kind}_auc": one.aucs[kind].to_json() for kind in KINDS},
                "false_positive_rate": one.false_positives.to_json(),
                "false_negative_rate": one.false_negatives.to_json(),
            }
            for name, one in figures.terms.items()
        },
    }


def _calibration(
    scores: NDArray[np.float64], is_toxic: NDArray[np.bool_]
) -> tuple[tuple[tuple[float, Estimate], ...], tuple[int, ...], float]:
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    curve = []
    counts = []
    error = 0.0
    for index in range(_BINS):
        inside = bins == index
        counts.append(int(inside.sum()))
        if counts[-1]:
            share = statistics.rate_of(is_toxic[inside])
            mean = float(scores[inside].mean())
            curve.append((mean, share))
            error += counts[-1] / scores.size * abs(mean - share.value)
    return tuple(curve), tuple(counts), error


def _average_precision(scores: NDArray[np.float64], is_toxic: NDArray[np.bool_]) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_toxic[order])
    ends = np.append(np.diff(scores[order]) != 0, True)
    precision = (hits / np.arange(1, scores.size + 1))[ends]
    recall = hits[ends] / hits[-1]
    return float(np.sum(np.diff(np.append(0.0, recall)) * precision))


def _known(value: float) -> float | None:
    return None if value != value else value
