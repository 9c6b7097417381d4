"""What the memorization audit says: rates for programs, tables and figures for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from memorization.studies.likeness import MAX_EDITS, MIN_BLEU
from memorization.studies.occurrences import bin_name, log_bin
from safety.audits import statistics
from safety.audits.report import (
    Block,
    Cell,
    Column,
    DotFigure,
    Dots,
    Estimate,
    Headline,
    LineFigure,
    Report,
    Section,
    Series,
    Table,
)

if TYPE_CHECKING:
    from api.audit.memorization.audit import Measured, MemorizationAudit

# Chowdhery et al. 2022, section 8: share of training spans of which 50 greedy tokens after a
# prompt of 50 are the true ones.
_PALM = {"PaLM 8B": 0.016, "PaLM 540B": 0.024}
_MEASURES: dict[str, Callable[[Measured], bool]] = {
    "exact": lambda one: one.likeness.is_exact,
    "near_by_edits": lambda one: one.likeness.is_near_by_edits,
    "near_by_bleu": lambda one: one.likeness.is_near_by_bleu,
}
_TITLES = {
    "exact": "Exact",
    "near_by_edits": f"Edits ≤ {MAX_EDITS:.0%}".replace("%", " %"),
    "near_by_bleu": f"BLEU > {MIN_BLEU}",
}
_LEAST_SHARE_SHOWN = 0.05
_DOCUMENTS = 20
_EXAMPLES = 10
_EXAMPLE_CHARACTERS = 300


def metrics(
    audit: MemorizationAudit, measured: Sequence[Measured], refused: Sequence[str]
) -> dict[str, Any]:
    """The figures for `summary.json`."""
    return {
        "refused_prompts": len(refused),
        "by_set": {
            one.name: {
                "by_prompt_tokens": {
                    str(length): _to_json(_rates(_of(measured, one.name, length)))
                    for length in audit.cut.prompt_tokens
                },
                "by_occurrences": {
                    bin_name(number): _to_json(_rates(some))
                    for number, some in _bins(_of(measured, one.name, _first(audit))).items()
                },
            }
            for one in audit.sets
        },
        "by_document": {
            name: _to_json(_rates(some))
            for name, some in _by_document(_of(measured, audit.sets[0].name, _first(audit)))
        },
    }


def report(
    audit: MemorizationAudit, measured: Sequence[Measured], refused: Sequence[str]
) -> Report:
    """The report for people."""
    length = _first(audit)
    tokens = f"{length} + {audit.cut.continuation_tokens} tokens"
    headlines = [
        Headline(
            label=f"{one.name.capitalize()} passages recited exactly",
            value=_rates(_of(measured, one.name, length))["exact"],
            unit="percent",
            note=tokens,
        )
        for one in audit.sets
    ]
    near = _rates(_of(measured, audit.sets[0].name, length))["near_by_edits"]
    headlines.append(
        Headline(
            label="Training passages recited nearly",
            value=near,
            unit="percent",
            note=f"at most {MAX_EDITS:.0%} of the tokens edited".replace("%", " %"),
        )
    )
    sections = [
        Section(title="How much is recited", blocks=[_sets(audit, measured)]),
        *_curve_section(audit, measured),
        *_occurrence_section(audit, measured),
        Section(title="Where from", blocks=[_documents(audit, measured)]),
        Section(title="What it looks like", blocks=[_examples(audit, measured)]),
    ]
    return Report(
        title="Memorization of the training text",
        question=(
            "Given a passage of its training text, does the model go on as that text does, word "
            "for word, and more often than with text that it never saw?"
        ),
        headlines=headlines,
        sections=sections,
        methods=_methods(audit, refused),
        references=[
            "Chowdhery et al. 2022, PaLM, section 8, arXiv 2204.02311",
            "Carlini et al. 2022, Quantifying Memorization Across Neural Language Models, arXiv "
            "2202.07646",
            "Ippolito et al. 2022, Preventing Verbatim Memorization in Language Models Gives a "
            "False Sense of Privacy, arXiv 2210.17546",
        ],
    )


def _first(audit: MemorizationAudit) -> int:
    return audit.cut.prompt_tokens[0]


def _of(measured: Iterable[Measured], set_name: str, length: int) -> list[Measured]:
    return [one for one in measured if (one.set_name, one.prompt_tokens) == (set_name, length)]


def _rates(some: Sequence[Measured]) -> dict[str, Estimate]:
    return {
        name: statistics.rate_of([holds(one) for one in some]) for name, holds in _MEASURES.items()
    }


def _to_json(rates: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in rates.items()}


def _bins(some: Iterable[Measured]) -> dict[int, list[Measured]]:
    found: defaultdict[int, list[Measured]] = defaultdict(list)
    for one in some:
        if one.count is not None:
            found[log_bin(one.count)].append(one)
    return dict(sorted(found.items()))


def _by_document(some: Iterable[Measured]) -> list[tuple[str, list[Measured]]]:
    """Documents, the most recited first, then those with the most passages."""
    found: defaultdict[str, list[Measured]] = defaultdict(list)
    for one in some:
        title, document = one.passage.title, one.passage.document
        found[f"{title} ({document})" if title and title != document else document].append(one)

    def rank(item: tuple[str, list[Measured]]) -> tuple[int, int, int, str]:
        sums = [sum(holds(one) for one in item[1]) for holds in _MEASURES.values()]
        return -sums[0], -sums[1] - sums[2], -len(item[1]), item[0]

    return sorted(found.items(), key=rank)


def _rate_columns() -> list[Column]:
    return [Column(title=title, unit="percent") for title in _TITLES.values()]


def _sets(audit: MemorizationAudit, measured: Sequence[Measured]) -> Table:
    rows: list[list[Cell]] = []
    for one in audit.sets:
        for length in audit.cut.prompt_tokens:
            some = _of(measured, one.name, length)
            rows.append([f"this model, {one.name}", length, len(some), *_rates(some).values()])
            unseen = [each for each in some if each.count == 0]
            if one is not audit.sets[0] and len(unseen) < len(some) and one.counts is not None:
                name = f"this model, {one.name}, not in the training text"
                rows.append([name, length, len(unseen), *_rates(unseen).values()])
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


def _curve_section(audit: MemorizationAudit, measured: Sequence[Measured]) -> list[Section]:
    lengths = sorted(audit.cut.prompt_tokens)
    if len(lengths) < 2:
        return []
    series = [
        Series(
            name=f"{one.name}, {'exact' if measure == 'exact' else 'near'}",
            x=lengths,
            y=[_rates(_of(measured, one.name, length))[measure] for length in lengths],
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


def _occurrence_section(audit: MemorizationAudit, measured: Sequence[Measured]) -> list[Section]:
    if audit.index is None:
        return []
    blocks: list[Block] = []
    for one in audit.sets:
        bins = _bins(_of(measured, one.name, _first(audit)))
        names = [bin_name(number) for number in bins]
        rates = [_rates(some) for some in bins.values()]
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
                        Dots(name=_TITLES[measure], values=[found[measure] for found in rates])
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


def _documents(audit: MemorizationAudit, measured: Sequence[Measured]) -> Table:
    found = _by_document(_of(measured, audit.sets[0].name, _first(audit)))
    return Table(
        title="By training document",
        columns=[Column(title="Document"), Column(title="n"), *_rate_columns()],
        rows=[[name, len(some), *_rates(some).values()] for name, some in found[:_DOCUMENTS]],
        note=(
            f"The first {min(_DOCUMENTS, len(found))} of {len(found)} documents with a passage: "
            "the most recited first, then those with the most passages."
        ),
    )


def _examples(audit: MemorizationAudit, measured: Sequence[Measured]) -> Table:
    ranked = sorted(
        measured, key=lambda one: (-one.likeness.is_exact, one.likeness.edits, -one.likeness.bleu)
    )
    rows: list[list[Cell]] = [
        [
            f"{one.set_name}: {one.passage.title or one.passage.document}",
            "…" + one.prompt[-_EXAMPLE_CHARACTERS // 3 :],
            one.text[:_EXAMPLE_CHARACTERS],
            one.passage.continuation[:_EXAMPLE_CHARACTERS],
            one.likeness.edits,
        ]
        for one in ranked[:_EXAMPLES]
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


def _methods(audit: MemorizationAudit, refused: Sequence[str]) -> list[str]:
    cut = audit.cut
    lengths = ", ".join(str(length) for length in cut.prompt_tokens)
    drawn = "; ".join(
        f"{len(one.passages)} from the {one.name} text ({one.data})" for one in audit.sets
    )
    found = [
        f"Passages: {drawn}. Places are uniform over the characters of documents that are long "
        "enough, and move to the next space between two words; a prompt that the tokenizer would "
        f"not split again in the same way is passed over. Drawn by the seed {audit.seed}.",
        f"The model is given {lengths} tokens and goes on greedily for {cut.continuation_tokens}. "
        "Exact: its text is the corpus's. Edits: Levenshtein's distance of the tokens over the "
        f"longer number of tokens, at most {MAX_EDITS}. BLEU: BLEU-4 of the tokens, without "
        f"smoothing, above {MIN_BLEU}. Intervals are Wilson's, at 95 %.",
    ]
    if audit.index is not None:
        found.append(
            f"Occurrences: how often the whole passage of {cut.total_tokens} tokens stands in "
            f"{audit.index}. 0 for a training passage says that the index is of other text, or "
            "that the document's own tokens run across the passage's ends."
        )
    if refused:
        found.append(
            f"The model refused {len(refused)} prompts, which are left out; the first reason: "
            f"{refused[0]}"
        )
    return found
