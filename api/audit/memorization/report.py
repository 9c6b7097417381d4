"""What the memorization audit says: rates for programs, tables and figures for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from api.audit.memorization import samples as free_samples
from api.audit.memorization.measured import (
    Measured,
    by_bin,
    by_document,
    of_set,
    rates_of,
    rates_to_json,
)
from api.audit.memorization.samples import TracedSample
from api.audit.memorization.tables import (
    curve_section,
    documents_block,
    examples_table,
    first_length,
    nearest,
    occurrence_section,
    sets_table,
)
from api.audit.memorization.text_view import text_view
from memorization.opening import sure_tokens
from memorization.studies.likeness import MAX_EDITS, MIN_BLEU
from memorization.studies.occurrences import bin_name
from safety.audits.report import Headline, Report, Section, TextView

if TYPE_CHECKING:
    from api.audit.memorization.audit import MemorizationAudit

_LEAST_MARKED_TOKENS = 10
_SAMPLES_SHOWN = 10


def metrics(
    audit: MemorizationAudit,
    measured: Sequence[Measured],
    samples: Sequence[TracedSample],
    refused: Sequence[str],
) -> dict[str, Any]:
    """The figures for `summary.json`."""
    return {
        "refused_prompts": len(refused),
        **({"free_samples": free_samples.metrics(samples, audit.seed)} if samples else {}),
        "by_set": {
            one.name: {
                "by_prompt_tokens": {
                    str(length): rates_to_json(rates_of(of_set(measured, one.name, length)))
                    for length in audit.cut.prompt_tokens
                },
                "by_occurrences": {
                    bin_name(number): rates_to_json(rates_of(some))
                    for number, some in by_bin(
                        of_set(measured, one.name, first_length(audit))
                    ).items()
                },
            }
            for one in audit.sets
        },
        "by_document": {
            name: rates_to_json(rates_of(some))
            for name, some in by_document(of_set(measured, audit.sets[0].name, first_length(audit)))
        },
    }


def report(
    audit: MemorizationAudit,
    measured: Sequence[Measured],
    samples: Sequence[TracedSample],
    refused: Sequence[str],
) -> Report:
    """The report for people."""
    length = first_length(audit)
    tokens = f"{length} + {audit.cut.continuation_tokens} tokens"
    headlines = [
        Headline(
            label=f"{one.name.capitalize()} passages recited exactly",
            value=rates_of(of_set(measured, one.name, length))["exact"],
            unit="percent",
            note=tokens
            if audit.per_bin is None or one is not audit.sets[0]
            else f"{tokens}; at most {audit.per_bin} of each bin of occurrences",
        )
        for one in audit.sets
    ]
    near = rates_of(of_set(measured, audit.sets[0].name, length))["near_by_edits"]
    headlines.append(
        Headline(
            label="Training passages recited nearly",
            value=near,
            unit="percent",
            note=f"at most {MAX_EDITS:.0%} of the tokens edited".replace("%", " %"),
        )
    )
    sections = [
        Section(title="How much is recited", blocks=[sets_table(audit, measured)]),
        *curve_section(audit, measured),
        *occurrence_section(audit, measured),
        Section(title="Where from", blocks=[documents_block(audit, measured)]),
        *_samples_section(audit, measured, samples),
        Section(
            title="What it looks like",
            blocks=[*_views(audit, measured, samples), examples_table(measured)],
        ),
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
            "Nasr et al. 2023, Scalable Extraction of Training Data from (Production) Language "
            "Models, arXiv 2311.17035",
            "Liu et al. 2025, OLMoTrace, arXiv 2504.07096",
        ],
    )


def _by_occurrences(some: Sequence[Measured]) -> dict[str, Any]:
    return {
        bin_name(number): rates_to_json(rates_of(members))
        for number, members in by_bin(some).items()
    }


def _samples_section(
    audit: MemorizationAudit, measured: Sequence[Measured], samples: Sequence[TracedSample]
) -> list[Section]:
    if audit.free is None:
        return []
    discovered = rates_of(of_set(measured, audit.sets[0].name, first_length(audit)))["exact"]
    return [free_samples.section(audit.free, samples, discovered, audit.seed)]


def _views(
    audit: MemorizationAudit, measured: Sequence[Measured], samples: Sequence[TracedSample]
) -> list[TextView]:
    """What was said, with its recited runs, where there is an index to find them."""
    if audit.tracer is None:
        return []
    least = max(_LEAST_MARKED_TOKENS, sure_tokens(audit.tracer))
    continued = [
        (f"{one.set_name}: {one.passage.title or one.passage.document}", one.prompt, one.text)
        for one in nearest(measured)
    ]
    views = [("Continuations nearest to the truth", continued)]
    recited = [one for one in samples if one.spans]
    recited.sort(key=lambda one: -one.recited_tokens)
    if recited:
        said = [
            (f"{one.recited_tokens} of {one.tokens} tokens recited", one.prompt, one.text)
            for one in recited[:_SAMPLES_SHOWN]
        ]
        views.append(("Free samples, the most recited first", said))
    return [
        text_view(title, texts, audit.tokenizer, audit.tracer, min_tokens=least)
        for title, texts in views
    ]


def _methods(audit: MemorizationAudit, refused: Sequence[str]) -> list[str]:
    cut = audit.cut
    lengths = ", ".join(str(length) for length in cut.prompt_tokens)
    drawn = "; ".join(
        f"{len(one.passages)} from the {one.name} text ({one.data})" for one in audit.sets
    )
    found = [
        f"Passages: {drawn}. Places are uniform over the characters of documents that are long "
        "enough, and move to the next space between two words; a prompt that the tokenizer would "
        f"not split again in the same way is passed over. Drawn by the seed {audit.seed}."
        + _binned(audit),
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
    if audit.free is not None:
        free = audit.free
        found.append(
            f"Free samples: {len(free.prompts)} of {free.max_tokens} tokens, each after the first "
            f"tokens of a held-out passage, at temperature {free.temperature:g} and top-k "
            f"{free.top_k}; every run of {free.min_tokens} tokens that stands in {audit.index} "
            "counts, whichever document it is from."
        )
    if refused:
        found.append(
            f"The model refused {len(refused)} prompts, which are left out; the first reason: "
            f"{refused[0]}"
        )
    return found


def _binned(audit: MemorizationAudit) -> str:
    if audit.per_bin is None:
        return ""
    return (
        f" Of the training passages that were drawn, at most {audit.per_bin} of each bin of "
        "occurrences were kept: rates over all of them are of no corpus, those of a bin are."
    )
