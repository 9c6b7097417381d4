"""What deduplication removed: counts for programs, a report for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api.corpus.dedup_tables import clusters_of, exact_section, near_section, sources_table
from memorization.dedup.parameters import DedupParameters
from memorization.dedup.run import DedupResult
from memorization.lsh import match_probability
from safety.audits.report import Estimate, Headline, Report, Section
from safety.audits.units import Findings


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
                Section(title="What was removed", blocks=[sources_table(result)]),
                *near_section(result, parameters),
                *exact_section(result, parameters),
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
            "clusters": len(clusters_of(result)),
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
