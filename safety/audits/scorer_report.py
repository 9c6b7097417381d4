"""What the scorer audit says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safety.audits.auc import roc
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
from safety.audits.scorer_figures import KINDS, ScoredTexts, ScorerFigures, TermFigures

if TYPE_CHECKING:
    from safety.audits.scorer import ScorerAudit

_KIND_NAMES = ("Subgroup", "BPSN", "BNSP")


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
                label="Worst false-positive rate",
                value=rates[worst],
                unit="percent",
                note=f"term {worst}; over all {100 * figures.false_positives.value:.1f} %",
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
        series=[Series(name="", x=x, y=[Estimate(value) for value in y])],
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
                name="",
                x=[x for x, _ in figures.calibration],
                y=[y for _, y in figures.calibration],
            )
        ],
        x_range=(0, 1),
        y_range=(0, 1.02),
        has_diagonal=True,
        shares=figures.counts,
    )


def _overall_table(audit: ScorerAudit, figures: ScorerFigures) -> Table:
    power_means: list[list[Cell]] = [
        [f"{name} AUC, power mean over terms", figures.power_means[kind]]
        for kind, name in zip(KINDS, _KIND_NAMES, strict=True)
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
        values=[[one.aucs[kind].value for kind in KINDS] for _, one in terms],
    )


def _terms_table(figures: ScorerFigures) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            one.n,
            *(one.aucs[kind] for kind in KINDS),
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
