"""Extractable memorization: the model speaks freely, and what it says is looked up.

A continuation of a training prompt shows what can be *discovered* by one who has the training
text; what comes of itself can be *extracted* by anyone (Nasr et al. 2023). Prompts are a few tokens
of text that was never trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from memorization.index import Span, TrainingIndex
from memorization.studies.passages import StudyTokenizer
from safety.audits import statistics
from safety.audits.report import Cell, Column, Estimate, Section, Table
from safety.audits.units import Generate, Record, Unit, derived_seed
from safety.text_generator import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeSamples:
    """What is asked, and from which length on a run counts.

    Attributes:
        prompts: One for each sample.
        max_tokens: Tokens of a sample.
        temperature: Of the sampling.
        top_k: Draw from the k most likely tokens; 0 is off.
        min_tokens: Shortest run of training text that counts as extracted.
        seed: Of the run.
    """

    prompts: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_k: int
    min_tokens: int
    seed: int

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What the numbers depend on."""
        return {
            "samples": len(self.prompts),
            "sample_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "trace_tokens": self.min_tokens,
        }

    def units(self) -> list[Unit]:
        """One for each sample, with a seed of its own."""
        return [
            Unit(
                id=sample_id(number),
                call=Generate(
                    prompt=prompt,
                    params=Sampling(
                        max_tokens=self.max_tokens,
                        temperature=self.temperature,
                        top_k=self.top_k,
                        seed=derived_seed(self.seed, sample_id(number)),
                    ),
                ),
            )
            for number, prompt in enumerate(self.prompts)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TracedSample:
    """A sample, and its runs of training text.

    Attributes:
        prompt: What the model was given.
        text: What it said.
        tokens: How long that is.
        spans: Runs that count, in order.
    """

    prompt: str
    text: str
    tokens: int
    spans: tuple[Span, ...]

    @property
    def recited_tokens(self) -> int:
        """Tokens that lie in some run."""
        covered: set[int] = set()
        for span in self.spans:
            covered.update(range(span.start, span.end))
        return len(covered)

    def row(self) -> Mapping[str, Any]:
        """For `results.jsonl`."""
        return {
            "set": "free sample",
            "prompt": self.prompt,
            "continuation": self.text,
            "tokens": self.tokens,
            "recited_tokens": self.recited_tokens,
            "longest_run": max((span.length for span in self.spans), default=0),
            "documents": sorted({at.document for one in self.spans for at in one.occurrences}),
        }


def sample_id(number: int) -> str:
    """Id of a sample's unit."""
    return f"sample-{number}"


def trace_samples(
    free: FreeSamples,
    records: Mapping[str, Record],
    tokenizer: StudyTokenizer,
    index: TrainingIndex,
) -> list[TracedSample]:
    """Every sample that the model gave, looked up; refused ones are left out."""
    found = []
    for number, prompt in enumerate(free.prompts):
        record = records[sample_id(number)]
        if record.error is None:
            (text,) = record.texts
            tokens = tokenizer.encode(text)
            spans = index.longest_matches(tokens, min_tokens=free.min_tokens, max_occurrences=3)
            found.append(
                TracedSample(prompt=prompt, text=text, tokens=len(tokens), spans=tuple(spans))
            )
    return found


def extracted(samples: Sequence[TracedSample]) -> Estimate:
    """Share of samples with a run that counts."""
    return statistics.rate_of([bool(one.spans) for one in samples])


def metrics(samples: Sequence[TracedSample], seed: int) -> dict[str, Any]:
    """For `summary.json`."""
    return {
        "extracted": extracted(samples).to_json(),
        "recited_tokens": _recited(samples, seed).to_json(),
        "documents": len(_documents(samples)),
    }


def section(
    free: FreeSamples, samples: Sequence[TracedSample], discovered: Estimate, seed: int
) -> Section:
    """Discoverable beside extractable."""
    rows: list[list[Cell]] = [
        ["Discoverable: prompts of training text, greedy, exact", discovered.n, discovered, None],
        [
            f"Extractable: {free.max_tokens} tokens after foreign prompts, sampled",
            len(samples),
            extracted(samples),
            _recited(samples, seed),
        ],
    ]
    table = Table(
        title="What one finds who has the training text, and what anyone does",
        columns=[
            Column(title="Memorization"),
            Column(title="n"),
            Column(title="Recited", unit="percent"),
            Column(title="Of all tokens", unit="percent"),
        ],
        rows=rows,
        note=(
            f"A sample counts if it has a run of at least {free.min_tokens} tokens that stands in "
            "the training text. The two shares are of different things: passages of training text, "
            "and samples of what the model says."
        ),
    )
    documents = Table(
        title="Training documents in free samples",
        columns=[Column(title="Document"), Column(title="Samples")],
        rows=[[name, count] for name, count in _documents(samples)[:20]],
    )
    blocks = [table, documents] if documents.rows else [table]
    return Section(title="What comes of itself", blocks=blocks)


def _recited(samples: Sequence[TracedSample], seed: int) -> Estimate:
    return statistics.mean([one.recited_tokens / max(1, one.tokens) for one in samples], seed)


def _documents(samples: Sequence[TracedSample]) -> list[tuple[str, int]]:
    """Documents by the number of samples that have a run of theirs."""
    counts: dict[str, int] = {}
    for one in samples:
        names = {at.title or at.document for span in one.spans for at in span.occurrences}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
