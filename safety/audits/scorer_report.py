"""What the scorer audit says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safety.audits import statistics
from safety.audits.auc import auc, overall_bias_score, power_mean, roc, subgroup_aucs
from safety.audits.report import (
    Cell,
    Column,
    DotFigure,
    Dots,
    Estimate,
    Headline,
    HeatFigure,
    LineFigure,
    Report,
    Section,
    Series,
    Table,
)

if TYPE_CHECKING:
    from safety.audits.scorer import ScoredTexts, ScorerAudit

_BINS = 10
_KINDS = ("subgroup", "bpsn", "bnsp")
_KIND_NAMES = ("Subgroup", "BPSN", "BNSP")


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


def measure(audit: ScorerAudit, scored: ScoredTexts) -> ScorerFigures:
    """All figures."""
    scores, is_toxic = scored.scores, scored.is_toxic
    called = scores >= audit.threshold
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
        kind: power_mean([one.aucs[kind].value for one in terms.values()]) for kind in _KINDS
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
                **{f"{kind}_auc": one.aucs[kind].to_json() for kind in _KINDS},
                "false_positive_rate": one.false_positives.to_json(),
                "false_negative_rate": one.false_negatives.to_json(),
            }
            for name, one in figures.terms.items()
        },
    }


def report(audit: ScorerAudit, scored: ScoredTexts, figures: ScorerFigures, label: str) -> Report:
    """The report for people."""
    rates = {
        name: one.false_positives for name, one in figures.terms.items() if one.false_positives.n
    }
    worst = max(rates, key=lambda name: rates[name].value, default=None)
    headlines = [
        Headline(label="AUC", value=figures.auc, note=label),
        Headline(
            label="Expected calibration error",
            value=Estimate(figures.calibration_error, n=len(audit.texts_in)),
            note="0 is perfect",
        ),
        Headline(
            label="Overall bias score",
            value=Estimate(figures.overall_bias, n=len(figures.terms)),
            note="identity terms; 1 is perfect",
        ),
    ]
    if worst is not None:
        headlines.append(
            Headline(
                label=f"Highest false-positive rate of a term: {worst}",
                value=rates[worst],
                unit="percent",
                note=f"over all: {100 * figures.false_positives.value:.1f} %",
            )
        )
    sections = [
        Section(
            title="Does it tell toxic texts from others?",
            blocks=[_roc(scored, figures), _overall_table(audit, figures)],
        ),
        Section(title="Do its scores mean what they say?", blocks=[_calibration_figure(figures)]),
    ]
    if figures.terms:
        sections.append(
            Section(
                title="Whom does it wrong?",
                blocks=[_rates(audit, figures), _heat(figures), _terms_table(figures)],
            )
        )
    return Report(
        title="The scorer itself",
        question=(
            "Every figure of the other audits is only as good as the scorer behind it. How well "
            "does it tell toxic texts from others, are its scores probabilities, and does the "
            "mere name of a group make it see toxicity?"
        ),
        headlines=headlines,
        sections=sections,
        methods=_methods(audit, figures),
        references=[
            "Borkan et al. 2019, Nuanced Metrics for Measuring Unintended Bias, arXiv 1903.04561",
            "Dixon et al. 2018, Measuring and Mitigating Unintended Bias in Text Classification",
            "DeLong et al. 1988, Comparing the Areas under Correlated ROC Curves",
        ],
    )


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


def _roc(scored: ScoredTexts, figures: ScorerFigures) -> LineFigure:
    x, y = roc(scored.scores, scored.is_toxic)
    return LineFigure(
        title="ROC curve",
        caption=(
            f"Share of toxic texts found against share of innocent ones accused, for every "
            f"threshold. AUC {figures.auc.value:.3f}, n = {figures.auc.n:,}; the dotted line is "
            "guessing."
        ),
        x_label="False-positive rate",
        y_label="True-positive rate",
        series=[Series(name="all texts", x=x, y=[Estimate(value) for value in y])],
        x_range=(0, 1),
        y_range=(0, 1.02),
        has_diagonal=True,
    )


def _calibration_figure(figures: ScorerFigures) -> LineFigure:
    return LineFigure(
        title="Calibration",
        caption=(
            "Texts in ten bins of their score: the mean score of a bin against the share of its "
            "texts that people call toxic, with 95 % Wilson intervals; bars are the texts in each "
            "bin. On the dotted line a score is a probability; below it, the scorer exaggerates."
        ),
        x_label="Score",
        y_label="Share of toxic texts",
        series=[
            Series(
                name="share by mean score",
                x=[x for x, _ in figures.calibration],
                y=[y for _, y in figures.calibration],
            )
        ],
        x_range=(0, 1),
        y_range=(0, 1),
        has_diagonal=True,
        shares=figures.counts,
    )


def _overall_table(audit: ScorerAudit, figures: ScorerFigures) -> Table:
    power_means: list[list[Cell]] = [
        [f"{name} AUC, power mean over terms", figures.power_means[kind]]
        for kind, name in zip(_KINDS, _KIND_NAMES, strict=True)
    ]
    rows: list[list[Cell]] = [
        ["AUC", figures.auc],
        ["Average precision", figures.average_precision],
        ["Brier score", figures.brier],
        ["Expected calibration error", figures.calibration_error],
        [f"Precision at {audit.threshold:g}", figures.precision],
        [f"Recall at {audit.threshold:g}", figures.recall],
        [f"False-positive rate at {audit.threshold:g}", figures.false_positives],
        *power_means,
        ["Overall bias score", figures.overall_bias],
        ["False-positive equality difference", figures.equality_difference],
    ]
    return Table(
        title="Over all texts",
        columns=[Column(title="Figure"), Column(title="Value", unit="fraction")],
        rows=rows,
    )


def _by_false_positives(figures: ScorerFigures) -> list[tuple[str, TermFigures]]:
    def key(item: tuple[str, TermFigures]) -> tuple[float, str]:
        rate = item[1].false_positives.value
        return (-rate if rate == rate else 1.0, item[0])

    return sorted(figures.terms.items(), key=key)


def _rates(audit: ScorerAudit, figures: ScorerFigures) -> DotFigure:
    terms = [(name, one) for name, one in _by_false_positives(figures) if one.false_positives.n]
    return DotFigure(
        title="False-positive rate by identity term",
        caption=(
            f"Share of innocent texts with the term that score at least {audit.threshold:g}, with "
            "95 % Wilson intervals; the dotted line is the rate over all innocent texts. A term "
            "whose interval lies right of it is a term that the scorer takes for an insult."
        ),
        x_label="False-positive rate",
        categories=[f"{name} (n = {one.false_positives.n:,})" for name, one in terms],
        dots=[Dots(name="rate", values=[one.false_positives for _, one in terms])],
        reference=figures.false_positives.value,
        reference_label="all texts",
    )


def _heat(figures: ScorerFigures) -> HeatFigure:
    terms = _by_false_positives(figures)
    return HeatFigure(
        title="Subgroup, BPSN and BNSP AUC by identity term",
        caption=(
            "Subgroup: toxic against innocent texts with the term. BPSN: toxic texts without it "
            "against innocent ones with it; low where the term alone looks toxic. BNSP: toxic "
            "texts with it against innocent ones without; low where abuse of the group goes "
            "unseen. The stronger the colour, the worse; 1 is perfect, 0.5 is guessing."
        ),
        rows=[f"{name} (n = {one.n:,})" for name, one in terms],
        columns=list(_KIND_NAMES),
        values=[[one.aucs[kind].value for kind in _KINDS] for _, one in terms],
    )


def _terms_table(figures: ScorerFigures) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            one.n,
            *(one.aucs[kind] for kind in _KINDS),
            one.false_positives,
            one.false_negatives,
        ]
        for name, one in _by_false_positives(figures)
    ]
    return Table(
        title="Every identity term",
        columns=[
            Column(title="Term"),
            Column(title="Texts"),
            *(Column(title=f"{name} AUC", unit="fraction") for name in _KIND_NAMES),
            Column(title="False positives", unit="percent"),
            Column(title="False negatives", unit="percent"),
        ],
        rows=rows,
    )


def _methods(audit: ScorerAudit, figures: ScorerFigures) -> list[str]:
    toxic = sum(one.is_toxic for one in audit.texts_in)
    return [
        f"{len(audit.texts_in):,} labelled texts ({audit.data}), {toxic:,} of them toxic. The "
        f"scorer's first label is judged; a text is called toxic from {audit.threshold:g} on.",
        f"{len(figures.terms)} identity terms ({audit.terms_data}) are found as whole words; "
        f"terms in fewer than {audit.min_group} texts are left out.",
        "AUCs have DeLong intervals, rates Wilson's. Power means (exponent -5) weigh weak terms "
        "most; the overall bias score is the mean of the overall AUC and the three power means. "
        "The false-positive equality difference sums over terms how far their rate is from the "
        "overall one.",
    ]


def _known(value: float) -> float | None:
    return None if value != value else value
