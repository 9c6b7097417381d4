"""Tables and figures of what deduplication removed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from memorization.dedup.parameters import DedupParameters
from memorization.dedup.run import Cut, DedupResult
from memorization.studies.occurrences import bin_name, log_bin
from safety.audits.report import Cell, Column, Estimate, LineFigure, Section, Series, Table

_SHOWN = 20
_TEXT_CHARACTERS = 160


def document_title(result: DedupResult, number: int) -> str:
    """A document as people know it."""
    identifier, title, source = result.names[number]
    return f"{title or identifier} ({source})"


def clusters_of(result: DedupResult) -> dict[int, list[int]]:
    """The documents that each kept one stands for, where there are some."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for number in result.clusters.removed.tolist():
        found[int(result.clusters.kept[number])].append(number)
    return dict(found)


def sources_table(result: DedupResult) -> Table:
    """What is gone from each corpus file."""
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


def near_section(result: DedupResult, parameters: DedupParameters) -> list[Section]:
    """Clusters of near duplicates, where they were looked for."""
    if not parameters.near:
        return []
    clusters = clusters_of(result)
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
            document_title(result, kept),
            1 + len(members),
            int(sum(similarity[members] == 1)),
            float(similarity[members].min()),
            ", ".join(document_title(result, number) for number in members[:3])
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


def exact_section(result: DedupResult, parameters: DedupParameters) -> list[Section]:
    """Passages that were cut, where they were looked for."""
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
                document_title(result, cut.document),
                cut.tokens,
                document_title(result, cut.first_document),
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
                document_title(result, document),
                len(cuts),
                sum(cut.tokens for cut in cuts),
                cuts[0].text[:_TEXT_CHARACTERS],
            ]
            for (document, _), cuts in ranked[:_SHOWN]
        ],
        note=f"The first {min(_SHOWN, len(ranked))} of {len(ranked):,}.",
    )
