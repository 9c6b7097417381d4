"""`audit memorization`: does the model go on as its training text does, word for word?

What is computed is `memorization/studies`; here it becomes an audit, which neither `memorization`
nor `safety` can have, as they do not know each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from api.audit.memorization import report
from api.audit.memorization.measured import Measured
from api.audit.memorization.samples import FreeSamples, TracedSample, trace_samples
from memorization.index import TrainingIndex
from memorization.studies.likeness import compare_tokens
from memorization.studies.passages import Cut, Passage, StudyTokenizer
from safety.audits.units import Findings, Generate, Json, Record, Unit
from safety.text_generator import Sampling

TRAINING, HELD_OUT = "training", "held out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassageSet:
    """Passages of one corpus.

    Attributes:
        name: `TRAINING` or `HELD_OUT`.
        data: Name and hash of the corpus.
        passages: What is asked for.
        counts: How often each stands in the training text; None where nobody counted.
    """

    name: str
    data: str
    passages: tuple[Passage, ...]
    counts: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorizationAudit:
    """PaLM's protocol (section 8): prompts from the training text, continued greedily.

    Attributes:
        sets: The training text, and perhaps text that was never trained on.
        cut: Lengths of prompts and continuation.
        tokenizer: The model's.
        tokenizer_name: Its identity, or whose it is.
        index: The index that counted; None if nobody did.
        tracer: That index, to trace what the model says; None for no tracing.
        per_bin: Training passages of each bin of occurrences; None if drawn from all text alike.
        free: Samples of what the model says by itself; None for none. They need a tracer.
        seed: Of the drawing; greedy decoding has no chance in it.
    """

    sets: tuple[PassageSet, ...]
    cut: Cut
    tokenizer: StudyTokenizer
    tokenizer_name: str
    index: str | None = None
    tracer: TrainingIndex | None = None
    per_bin: int | None = None
    free: FreeSamples | None = None
    seed: int = 0

    name = "memorization"
    needs_model = True
    needs_scorer = False

    @property
    def settings(self) -> Mapping[str, Json]:
        """What the numbers depend on."""
        return {
            **{f"{one.name} text": one.data for one in self.sets},
            "passages": len(self.sets[0].passages),
            "prompt_tokens": list(self.cut.prompt_tokens),
            "continuation_tokens": self.cut.continuation_tokens,
            "tokenizer": self.tokenizer_name,
            "index": self.index,
            "per_bin": self.per_bin,
            "seed": self.seed,
            **({} if self.free is None else self.free.settings),
        }

    def units(self) -> Sequence[Unit]:
        """One for each prompt of each passage, then one for each free sample."""
        params = Sampling(max_tokens=self.cut.continuation_tokens, temperature=0.0, seed=self.seed)
        continued = [
            Unit(
                id=_id(one.name, number, length),
                call=Generate(prompt=prompt, params=params),
            )
            for one in self.sets
            for number, passage in enumerate(one.passages)
            for length, prompt in zip(self.cut.prompt_tokens, passage.prompts, strict=True)
        ]
        return [*continued, *([] if self.free is None else self.free.units())]

    def texts(self, unit: Unit, record: Record) -> Sequence[str]:
        """Nothing is scored."""
        return ()

    def findings(self, records: Mapping[str, Record], labels: Sequence[str]) -> Findings:
        """Rates, one row a prompt, and the report."""
        measured = self.measured(records)
        samples = self.samples(records)
        refused = [record.error for record in records.values() if record.error is not None]
        return Findings(
            metrics=report.metrics(self, measured, samples, refused),
            rows=[*map(_row, measured), *(one.row() for one in samples)],
            report=report.report(self, measured, samples, refused),
        )

    def samples(self, records: Mapping[str, Record]) -> list[TracedSample]:
        """Every free sample that the model gave, looked up."""
        if self.free is None or self.tracer is None:
            return []
        return trace_samples(self.free, records, self.tokenizer, self.tracer)

    def measured(self, records: Mapping[str, Record]) -> list[Measured]:
        """Every prompt that the model continued, compared with the truth."""
        found = []
        for one in self.sets:
            for number, passage in enumerate(one.passages):
                truth = self.tokenizer.encode(passage.continuation)
                for length, prompt in zip(self.cut.prompt_tokens, passage.prompts, strict=True):
                    record = records[_id(one.name, number, length)]
                    if record.error is not None:
                        continue
                    (text,) = record.texts
                    found.append(
                        Measured(
                            set_name=one.name,
                            passage=passage,
                            count=None if one.counts is None else one.counts[number],
                            prompt_tokens=length,
                            prompt=prompt,
                            text=text,
                            likeness=compare_tokens(self.tokenizer.encode(text), truth),
                        )
                    )
        return found


def _id(name: str, number: int, length: int) -> str:
    return f"{name.replace(' ', '-')}-{number}-{length}"


def _row(one: Measured) -> Mapping[str, Any]:
    return {
        "set": one.set_name,
        "document": one.passage.document,
        "title": one.passage.title,
        "source": one.passage.source,
        "offset": one.passage.offset,
        "occurrences": one.count,
        "prompt_tokens": one.prompt_tokens,
        "prompt": one.prompt,
        "continuation": one.text,
        "truth": one.passage.continuation,
        "is_exact": one.likeness.is_exact,
        "edits": one.likeness.edits,
        "bleu": one.likeness.bleu,
    }
