"""Tables and figures of recited passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from api.audit.memorization.measured import (
    MEASURES,
    TITLES,
    Measured,
    by_bin,
    by_document,
    of_set,
    rates_of,
)
from memorization.studies.occurrences import bin_name
from safety.audits.report import (
    Block,
    Cell,
    Column,
    DotFigure,
    Dots,
    LineFigure,
    Section,
    Series,
    Table,
)

if TYPE_CHECKING:
    from api.audit.memorization.audit import MemorizationAudit

# Chowdhery et al. 2022, section 8: share of training spans of which 50 greedy tokens after a
# prompt of 50 are the true ones.
_PALM = {"PaLM 8B": 0.016, "PaLM 540B": 0.024}
_LEAST_SHARE_SHOWN = 0.05
_DOCUMENTS = 20
_EXAMPLES = 10
_EXAMPLE_CHARACTERS = 300


def first_length(audit: MemorizationAudit) -> int:
    """The prompt length that all but the curve is about."""
    return audit.cut.prompt_tokens[0]


def _rate_columns() -> list[Column]:
    return [Column(title=title, unit="percent") for title in TITLES.values()]


def sets_table(audit: MemorizationAudit, measured: Sequence[Measured]) -> Table:
    """Rates by corpus and prompt length, beside PaLM's."""
    rows: list[list[Cell]] = []
    for one in audit.sets:
        for length in audit.cut.prompt_tokens:
            some = of_set(measured, one.name, length)
            rows.append([f"this model, {one.name}", length, len(some), *rates_of(some).values()])
            unseen = [each for each in some if each.count == 0]
            if one is not audit.sets[0] and len(unseen) < len(some) and one.counts is not None:
                name = f"this model, {one.name}, not in the training text"
                rows.append([name, length, len(unseen), *rates_of(unseen).values()])
    rows += [[name, 50, None, rate, None, None] for name, rate in _PALM.items()]
    return Table(
        title=f"Passages whose next {audit.cut.continuation_tokens} tokens come back",
        columns=[
            Column(title="Passages"),
            Column(title="Prompt (tokens)"),
            Column(title="n"),
            *_rate_columns(),
        ],
        rows=rows,
        note=(
            "What comes back of text that was never trained on is no memory: phrases that any "
            "text has, or text that stands in both. PaLM: section 8 of its paper, 50 greedy "
            "tokens after 50, on its own training text and tokenizer; another corpus, so those "
            "rows show the size of such figures and are no comparison."
        ),
    )


def curve_section(audit: MemorizationAudit, measured: Sequence[Measured]) -> list[Section]:
    """Rates along the prompt length, where there are several."""
    lengths = sorted(audit.cut.prompt_tokens)
    if len(lengths) < 2:
        return []
    series = [
        Series(
            name=f"{one.name}, {'exact' if measure == 'exact' else 'near'}",
            x=lengths,
            y=[rates_of(of_set(measured, one.name, length))[measure] for length in lengths],
            is_reference=one is not audit.sets[0],
        )
        for one in audit.sets
        for measure in ("exact", "near_by_edits")
    ]
    highest = max((each.high or 0.0 for one in series for each in one.y), default=0.0)
    figure = LineFigure(
        title="Recited passages by length of the prompt",
        caption=(
            "The same continuations, after more and more of what stands before them; bands are "
            "Wilson's 95 % intervals. “Near” is at most 10 % of the tokens edited."
        ),
        x_label="Prompt (tokens)",
        y_label="Share of passages",
        series=series,
        x_range=(lengths[0], lengths[-1]),
        # Nothing recited shall look like nothing, not fill the figure with its interval.
        y_range=(0, min(1.0, max(_LEAST_SHARE_SHOWN, 1.1 * highest))),
    )
    return [Section(title="Longer prompts", blocks=[figure])]


def occurrence_section(audit: MemorizationAudit, measured: Sequence[Measured]) -> list[Section]:
    """Rates by how often a passage stands in the training text, where that was counted."""
    if audit.index is None:
        return []
    blocks: list[Block] = []
    for one in audit.sets:
        bins = by_bin(of_set(measured, one.name, first_length(audit)))
        names = [bin_name(number) for number in bins]
        rates = [rates_of(some) for some in bins.values()]
        if len(bins) > 1:
            blocks.append(
                DotFigure(
                    title=f"Recited passages by occurrences, {one.name}",
                    caption="Shares with Wilson's 95 % intervals, in bins that double.",
                    x_label="Share of passages",
                    categories=[
                        f"{name} times, n = {len(some)}"
                        for name, some in zip(names, bins.values(), strict=True)
                    ],
                    dots=[
                        Dots(name=TITLES[measure], values=[found[measure] for found in rates])
                        for measure in ("exact", "near_by_edits")
                    ],
                )
            )
        blocks.append(
            Table(
                title=f"By occurrences in the training text: {one.name}",
                columns=[
                    Column(title="Times the passage stands there"),
                    Column(title="n"),
                    *_rate_columns(),
                ],
                rows=[
                    [name, len(some), *found.values()]
                    for name, some, found in zip(names, bins.values(), rates, strict=True)
                ],
            )
        )
    return [Section(title="Repeated text", blocks=blocks)]


def documents_block(audit: MemorizationAudit, measured: Sequence[Measured]) -> Block:
    """Rates by training document, where something of one is recited."""
    found = by_document(of_set(measured, audit.sets[0].name, first_length(audit)))
    recited = [
        (name, some)
        for name, some in found
        if any(holds(one) for holds in MEASURES.values() for one in some)
    ]
    if not recited:
        return f"Of none of the {len(found)} training documents with a passage one is recited."
    return Table(
        title="By training document",
        columns=[Column(title="Document"), Column(title="n"), *_rate_columns()],
        rows=[[name, len(some), *rates_of(some).values()] for name, some in recited[:_DOCUMENTS]],
        note=(
            f"Of {len(recited)} of the {len(found)} documents with a passage something is recited; "
            f"{min(_DOCUMENTS, len(recited))} are shown, the most recited first."
        ),
    )


def nearest(measured: Sequence[Measured]) -> list[Measured]:
    """The continuations nearest to the truth."""
    ranked = sorted(
        measured, key=lambda one: (-one.likeness.is_exact, one.likeness.edits, -one.likeness.bleu)
    )
    return ranked[:_EXAMPLES]


def examples_table(measured: Sequence[Measured]) -> Table:
    """The continuations nearest to the truth, beside it."""
    rows: list[list[Cell]] = [
        [
            f"{one.set_name}: {one.passage.title or one.passage.document}",
            "…" + one.prompt[-_EXAMPLE_CHARACTERS // 3 :],
            one.text[:_EXAMPLE_CHARACTERS],
            one.passage.continuation[:_EXAMPLE_CHARACTERS],
            one.likeness.edits,
        ]
        for one in nearest(measured)
    ]
    return Table(
        title="The continuations nearest to the truth",
        columns=[
            Column(title="From"),
            Column(title="End of the prompt"),
            Column(title="The model"),
            Column(title="The text"),
            Column(title="Edits", unit="percent"),
        ],
        rows=rows,
        note="All of them are in results.jsonl.",
    )
