"""What deduplication removed: counts for programs, tables for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memorization.dedup.parameters import DedupParameters
from memorization.dedup.run import Cut, DedupResult
from memorization.lsh import match_probability
from memorization.studies.occurrences import bin_name, log_bin
from safety.audits.report import (
    Cell,
    Column,
    Estimate,
    Headline,
    LineFigure,
    Report,
    Section,
    Series,
    Table,
)
from safety.audits.units import Findings

_SHOWN = 20
_TEXT_CHARACTERS = 160


def findings(result: DedupResult, parameters: DedupParameters) -> Findings:
    """Figures, one row for each document or passage that was removed, and the report."""
    return Findings(
        metrics=_metrics(result),
        rows=[*_removed_rows(result), *_cut_rows(result)],
        report=Report(
            title="Deduplication of a corpus",
            question="What does the corpus say twice, and what is left without it?",
            headlines=_headlines(result),
            sections=[
                Section(title="What was removed", blocks=[_sources(result)]),
                *_near_section(result, parameters),
                *_exact_section(result, parameters),
            ],
            methods=_methods(result, parameters),
            references=[
                "Lee et al. 2021, Deduplicating Training Data Makes Language Models Better, arXiv "
                "2107.06499",
                "Broder 1997, On the resemblance and containment of documents",
                "Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3",
            ],
        ),
    )


def _metrics(result: DedupResult) -> dict[str, Any]:
    removed = result.clusters.removed
    return {
        "documents": len(result.names),
        "characters": sum(result.characters),
        "near": {
            "removed_documents": len(removed),
            "removed_characters": sum(result.characters[number] for number in removed.tolist()),
            "clusters": len(_clusters(result)),
            "pairs_compared": result.clusters.compared,
            "pairs_confirmed": result.clusters.confirmed,
        },
        "exact": {
            "passages": len(result.cuts),
            "tokens": sum(cut.tokens for cut in result.cuts),
            "characters": sum(cut.characters for cut in result.cuts),
            "of_tokens": result.tokens,
            "emptied_documents": len(result.emptied),
        },
        "left": {"documents": result.written, "characters": result.written_characters},
    }


def _removed_rows(result: DedupResult) -> Iterator[Mapping[str, Any]]:
    for number in result.clusters.removed.tolist():
        yield {
            "kind": "near duplicate",
            **_named(result, number),
            **_named(result, int(result.clusters.kept[number]), "kept_"),
            "similarity": float(result.clusters.similarity[number]),
            "characters": result.characters[number],
        }


def _cut_rows(result: DedupResult) -> Iterator[Mapping[str, Any]]:
    for cut in result.cuts:
        yield {
            "kind": "passage",
            **_named(result, cut.document),
            "offset": cut.start,
            "characters": cut.characters,
            "tokens": cut.tokens,
            **_named(result, cut.first_document, "first_"),
            "first_token": cut.first_start,
            "text": cut.text,
        }


def _named(result: DedupResult, number: int, prefix: str = "") -> dict[str, str]:
    identifier, title, source = result.names[number]
    return {
        f"{prefix}document": identifier,
        f"{prefix}title": title,
        f"{prefix}source": source,
    }


def _title(result: DedupResult, number: int) -> str:
    identifier, title, source = result.names[number]
    return f"{title or identifier} ({source})"


def _clusters(result: DedupResult) -> dict[int, list[int]]:
    """The documents that each kept one stands for, where there are some."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number in result.clusters.removed.tolist():
        found[int(result.clusters.kept[number])].append(number)
    return dict(found)


def _headlines(result: DedupResult) -> list[Headline]:
    documents, characters = len(result.names), sum(result.characters)
    headlines = [
        Headline(
            label="Documents removed as near duplicates",
            value=Estimate(len(result.clusters.removed) / documents, n=documents),
            unit="percent",
        )
    ]
    if result.tokens is not None:
        cut = sum(one.tokens for one in result.cuts)
        headlines.append(
            Headline(
                label="Tokens of the rest cut as repeated passages",
                value=Estimate(cut / max(1, result.tokens), n=result.tokens),
                unit="percent",
            )
        )
    headlines.append(
        Headline(
            label="Characters left",
            value=Estimate(result.written_characters / max(1, characters), n=characters),
            unit="percent",
        )
    )
    return headlines


def _sources(result: DedupResult) -> Table:
    removed, cuts, characters = Counter[str](), Counter[str](), Counter[str]()
    for number in result.clusters.removed.tolist():
        removed[result.names[number][2]] += 1
        characters[result.names[number][2]] += result.characters[number]
    for cut in result.cuts:
        cuts[result.names[cut.document][2]] += 1
        characters[result.names[cut.document][2]] += cut.characters
    documents = Counter(source for _, _, source in result.names)
    sizes = Counter[str]()
    for (_, _, source), size in zip(result.names, result.characters, strict=True):
        sizes[source] += size
    return Table(
        title="By corpus file",
        columns=[
            Column(title="File"),
            Column(title="Documents"),
            Column(title="Removed"),
            Column(title="Passages cut"),
            Column(title="Characters"),
            Column(title="Gone", unit="percent"),
        ],
        rows=[
            [
                source,
                count,
                removed[source],
                cuts[source],
                sizes[source],
                characters[source] / max(1, sizes[source]),
            ]
            for source, count in documents.items()
        ],
    )


def _near_section(result: DedupResult, parameters: DedupParameters) -> list[Section]:
    if not parameters.near:
        return []
    clusters = _clusters(result)
    sizes = Counter(log_bin(1 + len(members)) for members in clusters.values())
    similarity = result.clusters.similarity
    largest = sorted(clusters.items(), key=lambda item: (-len(item[1]), item[0]))[:_SHOWN]
    by_size = Table(
        title="Clusters by size",
        columns=[Column(title="Documents of a cluster"), Column(title="Clusters")],
        rows=[[bin_name(number), count] for number, count in sorted(sizes.items())],
    )
    rows: list[list[Cell]] = [
        [
            _title(result, kept),
            1 + len(members),
            int(sum(similarity[members] == 1)),
            float(similarity[members].min()),
            ", ".join(_title(result, number) for number in members[:3])
            + (" …" if len(members) > 3 else ""),
        ]
        for kept, members in largest
    ]
    return [
        Section(
            title="Near-duplicate documents",
            blocks=[
                by_size,
                Table(
                    title="The largest clusters",
                    columns=[
                        Column(title="Stays"),
                        Column(title="Documents"),
                        Column(title="Of one wording"),
                        Column(title="Least similarity", unit="fraction"),
                        Column(title="Removed"),
                    ],
                    rows=rows,
                    note=(
                        f"The first {len(largest)} of {len(clusters)}; all removed documents are "
                        "in results.jsonl. Similarity with the one that stays."
                    ),
                ),
            ],
        )
    ]


def _exact_section(result: DedupResult, parameters: DedupParameters) -> list[Section]:
    if not parameters.exact:
        return []
    if not result.cuts:
        text = f"No passage of {parameters.min_tokens} tokens stands in what was left twice."
        return [Section(title="Repeated passages", blocks=[text])]
    return [
        Section(
            title="Repeated passages",
            blocks=[_lengths(result.cuts), _longest(result), _most_repeated(result)],
        )
    ]


def _lengths(cuts: Sequence[Cut]) -> LineFigure:
    lengths = np.sort([cut.tokens for cut in cuts])
    total = lengths.sum()
    # Tokens of all passages that are at least as long, from the shortest to the longest.
    behind = np.cumsum(lengths[::-1])[::-1]
    shortest, longest = int(lengths[0]), int(lengths[-1])
    ticks = np.unique(np.geomspace(shortest, longest, 12).astype(int))
    places = np.searchsorted(lengths, ticks)
    return LineFigure(
        title="Cut tokens by length of the passage",
        caption="Share of all cut tokens that lie in passages of at least so many tokens.",
        x_label="Length of a passage (tokens)",
        y_label="Share of cut tokens",
        series=[
            Series(
                name="this corpus",
                x=ticks.tolist(),
                y=[Estimate(float(behind[place] / total)) for place in places.tolist()],
            )
        ],
        x_range=(shortest / 1.1, longest * 1.1),
        y_range=(0, 1.05),
        has_log_x=True,
    )


def _longest(result: DedupResult) -> Table:
    longest = sorted(result.cuts, key=lambda cut: (-cut.tokens, cut.document, cut.start))
    return Table(
        title="The longest passages",
        columns=[
            Column(title="Cut from"),
            Column(title="Tokens"),
            Column(title="Stands first in"),
            Column(title="Begins"),
        ],
        rows=[
            [
                _title(result, cut.document),
                cut.tokens,
                _title(result, cut.first_document),
                cut.text[:_TEXT_CHARACTERS],
            ]
            for cut in longest[:_SHOWN]
        ],
        note=f"The first {min(_SHOWN, len(longest))} of {len(longest):,}.",
    )


def _most_repeated(result: DedupResult) -> Table:
    groups: defaultdict[tuple[int, int], list[Cut]] = defaultdict(list)
    for cut in result.cuts:
        groups[cut.first_document, cut.first_start].append(cut)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return Table(
        title="The passages that come again most often",
        columns=[
            Column(title="Stands first in"),
            Column(title="Times cut"),
            Column(title="Tokens, all together"),
            Column(title="Begins"),
        ],
        rows=[
            [
                _title(result, document),
                len(cuts),
                sum(cut.tokens for cut in cuts),
                cuts[0].text[:_TEXT_CHARACTERS],
            ]
            for (document, _), cuts in ranked[:_SHOWN]
        ],
        note=f"The first {min(_SHOWN, len(ranked))} of {len(ranked):,}.",
    )


def _methods(result: DedupResult, parameters: DedupParameters) -> list[str]:
    found = []
    if parameters.near:
        banding = parameters.banding
        at_threshold = match_probability(parameters.threshold, banding)
        found.append(
            f"Two documents are near duplicates if the Jaccard similarity of their shingles of "
            f"{parameters.shingle_words} words is at least {parameters.threshold}. Pairs that "
            f"share one of {banding.bands} bands of {banding.rows} MinHash values are compared "
            f"by all of their shingles ({result.clusters.compared:,} pairs, of which "
            f"{result.clusters.confirmed:,} reached the threshold; pairs that others had joined "
            f"already are not compared). A pair right at the threshold is found with probability "
            f"{at_threshold:.3f}, a more similar one with more. Clusters are what pairs connect; "
            "the first document stays, so a member may resemble it less than the threshold."
        )
    if parameters.exact:
        found.append(
            f"In what is left, every run of at least {parameters.min_tokens} tokens that stands "
            "in the corpus before is cut (suffix arrays, exact); its first occurrence stays. "
            "Where a cut meets the text around it, nothing is put between. Of "
            f"{len(result.emptied):,} documents nothing was left; they are left out."
        )
    return found
