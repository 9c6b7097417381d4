"""What the contamination audit says: shares for programs, tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from api.audit.contamination_config import ContaminationConfig
from memorization.studies.contamination import Contamination
from safety.audits import statistics
from safety.audits.report import Cell, Column, Headline, Report, Section, Table
from safety.audits.units import Findings

_EXAMPLES = 20
_BINS = 10


def findings(
    config: ContaminationConfig,
    lines: Sequence[int],
    found: Sequence[Contamination],
    splits: Sequence[str],
) -> Findings:
    """Figures, one row an example, and the report.

    Args:
        config: The settings.
        lines: The examples' lines in the benchmark.
        found: What of each the training text has.
        splits: Where each belongs.
    """
    decided = len(splits) - splits.count("undecided")
    share = statistics.rate(splits.count("contaminated"), decided)
    return Findings(
        metrics={
            "contaminated": share.to_json(),
            "counts": {name: splits.count(name) for name in dict.fromkeys(sorted(splits))},
        },
        rows=[
            {
                "line": line,
                "split": split,
                "ngrams": one.ngrams,
                "found": one.found,
                "share": one.share,
                "document": one.document,
                "title": one.title,
            }
            for line, one, split in zip(lines, found, splits, strict=True)
        ],
        report=Report(
            title=f"Contamination of {config.benchmark.name}",
            question="Which examples of the benchmark stand in the training text?",
            headlines=[
                Headline(
                    label="Examples that are contaminated",
                    value=share,
                    unit="percent",
                    note=f"at least {config.threshold * 100:g} % of the {config.ngram_words}-grams",
                )
            ],
            sections=[
                Section(
                    title="How much of each example was found",
                    blocks=[_shares(found), _most(lines, found)],
                )
            ],
            methods=_methods(config, splits),
            references=["Chowdhery et al. 2022, PaLM, section 8, arXiv 2204.02311"],
        ),
    )


def _shares(found: Sequence[Contamination]) -> Table:
    shares = [one.share for one in found if one.share is not None]
    counts = [0] * _BINS
    for share in shares:
        counts[min(_BINS - 1, int(share * _BINS))] += 1
    rows: list[list[Cell]] = []
    for number, count in enumerate(counts):
        end = "]" if number == _BINS - 1 else ")"
        name = f"[{number / _BINS:.1f}, {(number + 1) / _BINS:.1f}{end}"
        rows.append([name, count, statistics.rate(count, len(shares))])
    return Table(
        title="Examples by the share of their n-grams that the training text has",
        columns=[
            Column(title="Share found"),
            Column(title="Examples"),
            Column(title="Of all", unit="percent"),
        ],
        rows=rows,
    )


def _most(lines: Sequence[int], found: Sequence[Contamination]) -> Table:
    ranked = sorted(
        ((one, line) for one, line in zip(found, lines, strict=True) if one.found),
        key=lambda item: (-(item[0].share or 0.0), -item[0].found, item[1]),
    )
    return Table(
        title="The examples of which most was found",
        columns=[
            Column(title="Line"),
            Column(title="n-grams"),
            Column(title="Found"),
            Column(title="Share", unit="percent"),
            Column(title="Most of them first in"),
        ],
        rows=[
            [line, one.ngrams, one.found, one.share, one.title or one.document]
            for one, line in ranked[:_EXAMPLES]
        ],
        note="All of them are in results.jsonl.",
    )


def _methods(config: ContaminationConfig, splits: Sequence[str]) -> list[str]:
    return [
        f"An example is contaminated if at least {config.threshold * 100:g} % of the different "
        f"{config.ngram_words}-grams of its fields {', '.join(config.fields)} occur anywhere in "
        "the training text. N-grams are of words (letters, digits and underscores, in lower case) "
        "within one field; they are compared by 64-bit hashes.",
        f"{splits.count('undecided')} of {len(splits)} examples have no text of "
        f"{config.ngram_words} words; nothing can be said about them, and they count nowhere.",
        "clean.jsonl, contaminated.jsonl and undecided.jsonl hold the examples: compare a model's "
        "scores on the first two with its score on all. Intervals are Wilson's, at 95 %.",
    ]
