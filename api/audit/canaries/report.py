"""What the experiment with canaries says: rates, laws, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from api.audit.canaries.figures import (
    Asked,
    repetitions_figure,
    repetitions_of,
    size_figure,
)
from api.audit.canaries.laws import (
    Law,
    Outcomes,
    logistic_law,
    slope_in_repetitions,
    slope_in_size,
)
from memorization.studies.likeness import MAX_EDITS
from safety.audits import statistics
from safety.audits.report import (
    Cell,
    Column,
    Estimate,
    Headline,
    Report,
    Section,
    Table,
)
from safety.audits.units import Findings


def findings(asked: Sequence[Asked], settings: Mapping[str, Any], seed: int) -> Findings:
    """Figures, one row for each canary and model, and the report."""
    outcomes = outcomes_of(asked)
    law = logistic_law(outcomes, seed)
    in_repetitions = [slope_in_repetitions(outcomes, n, seed) for n in range(len(asked))]
    in_size = slope_in_size(outcomes, seed) if len(asked) > 1 else None
    return Findings(
        metrics={
            "by_model": {
                one.shape: {
                    "parameters": one.parameters,
                    "by_repetitions": {
                        str(times): {
                            "exact": statistics.rate_of(one.answers(times)).to_json(),
                            "near_by_edits": _near(one, times).to_json(),
                        }
                        for times in repetitions_of(asked)
                    },
                    "share_per_doubling": slope.to_json(),
                    "repetitions_for_half": half.to_json(),
                }
                for one, slope, half in zip(asked, in_repetitions, law.halves, strict=True)
            },
            "share_per_tenfold_size": None if in_size is None else in_size.to_json(),
            "logistic": {
                "coefficients": list(law.coefficients),
                "odds_per_doubling": law.odds_per_doubling.to_json(),
                "repetitions_per_tenfold_size": None
                if law.repetitions_per_tenfold is None
                else law.repetitions_per_tenfold.to_json(),
                "misfit_p": law.misfit_p,
            },
        },
        rows=[{"model": one.shape, **row} for one in asked for row in one.rows],
        report=_report(asked, law, in_repetitions, in_size, settings),
    )


def outcomes_of(asked: Sequence[Asked]) -> Outcomes:
    """What the laws are fitted to; controls are left out."""
    return Outcomes(
        parameters=tuple(one.parameters for one in asked),
        answers={
            times: np.stack([one.answers(times) for one in asked], axis=1).astype(np.float64)
            for times in repetitions_of(asked)
            if times
        },
    )


def _near(one: Asked, times: int) -> Estimate:
    return statistics.rate_of(one.answers(times, nearly=True))


def _report(
    asked: Sequence[Asked],
    law: Law,
    in_repetitions: Sequence[Estimate],
    in_size: Estimate | None,
    settings: Mapping[str, Any],
) -> Report:
    headlines = [
        Headline(
            label="Factor on the odds of reciting, text seen twice as often",
            value=law.odds_per_doubling,
            unit="number",
            note="one law for all models",
        )
    ]
    if law.repetitions_per_tenfold is not None:
        headlines.append(
            Headline(
                label="Fewer repetitions that a model ten times as large needs, factor",
                value=law.repetitions_per_tenfold,
                unit="number",
                note="one law for all models",
            )
        )
    headlines += [
        Headline(
            label=f"Repetitions for one half, {one.title} parameters",
            value=half,
            unit="number",
        )
        for one, half in zip(asked, law.halves, strict=True)
    ]
    figures = [repetitions_figure(asked, law)]
    if len(asked) > 1:
        figures.append(size_figure(asked, law))
    return Report(
        title="Memorization by repetitions and size",
        question=(
            "How often must a text stand in the training data until a model recites it, and how "
            "does that change with the model's size?"
        ),
        headlines=headlines,
        sections=[
            Section(title="What is recited", blocks=[*figures, _rates(asked)]),
            Section(title="The laws", blocks=[_laws(asked, law, in_repetitions, in_size)]),
        ],
        methods=_methods(asked, settings),
        references=[
            "Carlini et al. 2022, Quantifying Memorization Across Neural Language Models, arXiv "
            "2202.07646",
            "Carlini et al. 2019, The Secret Sharer, arXiv 1802.08232",
            "Chowdhery et al. 2022, PaLM, section 8, arXiv 2204.02311",
        ],
    )


def _rates(asked: Sequence[Asked]) -> Table:
    rows: list[list[Cell]] = []
    for times in repetitions_of(asked):
        cells: list[Cell] = [times, len(asked[0].answers(times))]
        for one in asked:
            cells += [statistics.rate_of(one.answers(times)), _near(one, times)]
        rows.append(cells)
    return Table(
        title="Canaries that come back",
        columns=[
            Column(title="Times seen"),
            Column(title="n"),
            *(
                Column(title=f"{one.title}, {kind}", unit="percent")
                for one in asked
                for kind in ("exact", "near")
            ),
        ],
        rows=rows,
        note=(
            f"Near: at most {MAX_EDITS * 100:g} % of the tokens edited. Wilson's 95 % intervals."
        ),
    )


def _laws(
    asked: Sequence[Asked], law: Law, in_repetitions: Sequence[Estimate], in_size: Estimate | None
) -> Table:
    rows: list[list[Cell]] = [
        [f"{one.title}: each doubling of the repetitions adds", slope, None, None]
        for one, slope in zip(asked, in_repetitions, strict=True)
    ]
    if in_size is not None:
        rows.append(["Mean over repetitions: each tenfold of the size adds", in_size, None, None])
    rows.append(
        ["One logistic law: a doubling multiplies the odds by", None, law.odds_per_doubling, None]
    )
    if law.repetitions_per_tenfold is not None:
        name = "One logistic law: a tenfold size divides the repetitions by"
        rows.append([name, None, None, law.repetitions_per_tenfold])
    rows += [
        [f"{one.title}, its own curve: half of the canaries come back at", None, None, half]
        for one, half in zip(asked, law.halves, strict=True)
    ]
    return Table(
        title="Fits to the rates",
        columns=[
            Column(title="Law"),
            Column(title="Share of canaries", unit="points"),
            Column(title="Odds", unit="number"),
            Column(title="Repetitions", unit="number"),
        ],
        rows=rows,
        note=(
            "Lines by least squares over all repetitions from 1 on, those at which nothing or "
            "everything comes back too, which makes their slopes smaller than in between. 95 % "
            "intervals by resampling canaries." + _fit_note(law)
        ),
    )


def _fit_note(law: Law) -> str:
    if law.misfit_p is None:
        return ""
    verdict = "does not fit as well" if law.misfit_p < 0.05 else "fits as well"
    return (
        f" One law for all models {verdict} as a curve for each (likelihood-ratio test, p = "
        f"{law.misfit_p:.2g}): where it does not, read the curves."
    )


def _methods(asked: Sequence[Asked], settings: Mapping[str, Any]) -> list[str]:
    return [
        "A canary is words of one token each, drawn uniformly from the tokenizer's vocabulary: "
        "nothing of it can be guessed, and no other text has it. Its copies are documents of their "
        f"own, shuffled among passages of {settings['training text'].split(',')[0]}; all models "
        f"see the same sequences in the same order, once ({settings['batch']} a step). Sequences "
        "are cut where they are full: a copy that lies across two of them is seen in two parts.",
        f"A model is given the first {settings['prompt_tokens']} tokens of a canary, from between "
        f"two words, and goes on greedily for {settings['continuation_tokens']}. Exact: the text "
        "is the canary's.",
        "One training for each size: what another seed would change is in no interval. Canaries "
        "are much of what these models read, and random words hold more information than prose: "
        "the numbers of repetitions are those of this experiment; the shape of the laws is what it "
        "tests.",
        f"Models: {', '.join(f'{one.shape} ({one.parameters:,} parameters)' for one in asked)}; "
        "width x layers, PaLM's block with heads of 32.",
    ]
