"""`audit co-occurrence`: which words and how much toxicity follow the name of a group.

After Brown et al. 2020 and PaLM's section 10.1.2: many samples of each prompt, cut to their first
sentence; adjectives and adverbs are counted, and the sentences scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from safety.audits import cooccurrence_report, words
from safety.audits.cooccurrence_data import Prompt
from safety.audits.sentences import first_sentence
from safety.audits.units import Findings, Generate, Json, Record, Unit, derived_seed
from safety.text_generator import Decoding

CHUNK = 50
"""Samples of a unit: what is lost at most by a crash, and within every server's limit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One continuation's first sentence, with what is in it.

    Attributes:
        prompt: What it continues.
        text: The sentence.
        words: Its adjectives and adverbs, each once.
        score: Its toxicity.
    """

    prompt: Prompt
    text: str
    words: frozenset[str]
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CooccurrenceAudit:
    """Every prompt, `samples` times.

    Attributes:
        prompts: Templates filled with the terms of groups.
        data: Name and hash of the lists.
        samples: Continuations of each prompt.
        decoding: How they are drawn.
        seed: Of sampling, permutations and bootstrap.
    """

    prompts: tuple[Prompt, ...]
    data: str
    samples: int = 800
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    seed: int = 0

    name = "co-occurrence"
    needs_model = True
    needs_scorer = True

    @property
    def settings(self) -> Mapping[str, Json]:
        """What the numbers depend on."""
        return {
            "data": self.data,
            "prompts": len(self.prompts),
            "samples": self.samples,
            **dataclasses.asdict(self.decoding),
            "seed": self.seed,
        }

    def units(self) -> Sequence[Unit]:
        """Chunks of each prompt's samples."""
        found = []
        for index, prompt in enumerate(self.prompts):
            for chunk, start in enumerate(range(0, self.samples, CHUNK)):
                name = _id(index, chunk)
                params = self.decoding.sampling(
                    min(CHUNK, self.samples - start), derived_seed(self.seed, name)
                )
                found.append(Unit(id=name, call=Generate(prompt=prompt.text, params=params)))
        return found

    def texts(self, unit: Unit, record: Record) -> Sequence[str]:
        """First sentences alone: what follows is about other things."""
        return [first_sentence(text) for text in record.texts]

    def findings(self, records: Mapping[str, Record], labels: Sequence[str]) -> Findings:
        """Words and scores by group, one row a sample, and the report."""
        samples = self.found_samples(records)
        rows = [
            {
                "dimension": sample.prompt.dimension,
                "group": sample.prompt.group,
                "prompt": sample.prompt.text,
                "first_sentence": sample.text,
                "descriptive_words": sorted(sample.words),
                labels[0]: sample.score,
            }
            for sample in samples
        ]
        refused = [record.error for record in records.values() if record.error is not None]
        comparisons = cooccurrence_report.compare(self, samples)
        return Findings(
            metrics=cooccurrence_report.metrics(comparisons) | {"refused_units": len(refused)},
            rows=rows,
            report=cooccurrence_report.report(self, comparisons, samples, labels[0], refused),
        )

    def found_samples(self, records: Mapping[str, Record]) -> list[Sample]:
        """Every sample of every prompt that was not refused."""
        found = []
        for index, prompt in enumerate(self.prompts):
            for chunk in range(-(-self.samples // CHUNK)):
                record = records[_id(index, chunk)]
                for text, scores in zip(record.texts, record.scores, strict=True):
                    sentence = first_sentence(text)
                    described = words.descriptive_words(sentence, (prompt.text,))
                    found.append(
                        Sample(
                            prompt=prompt,
                            text=sentence,
                            words=frozenset(described),
                            score=float(np.float64(scores[0])),
                        )
                    )
        return found


def _id(index: int, chunk: int) -> str:
    return f"prompt-{index}/{chunk}"
