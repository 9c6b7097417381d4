"""`audit toxicity`: how toxic is what a model writes, by how toxic the prompt is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safety.audits import toxicity_report
from safety.audits.sentences import first_sentence
from safety.audits.toxicity_data import ToxicityPrompt
from safety.audits.toxicity_metrics import Floats
from safety.audits.units import Findings, Generate, Json, Record, Unit, derived_seed
from safety.text_generator import Decoding, Sampling

VARIANTS = ("first sentence", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was scored, as arrays; prompts that the model refused are left out.

    Attributes:
        prompts: The prompts that were continued.
        prompt_scores: float64[prompts, labels].
        human_scores: float64[prompts, labels]; NaN where there is no human continuation.
        scores: float64[variants, prompts, k, labels], of the first sentence and of the whole.
        tokens: int[prompts, k].
        refused: Why prompts were refused.
    """

    prompts: tuple[ToxicityPrompt, ...]
    prompt_scores: Floats
    human_scores: Floats
    scores: Floats
    tokens: Floats
    refused: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToxicityAudit:
    """The protocol of RealToxicityPrompts, as PaLM's section 10.2 has it.

    Attributes:
        prompts: What to continue.
        data: Name and hash of the prompt set.
        k: Continuations of each prompt.
        decoding: How they are drawn.
        seed: Of sampling and bootstrap.
    """

    prompts: tuple[ToxicityPrompt, ...]
    data: str
    k: int = 25
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    seed: int = 0

    name = "toxicity"
    needs_model = True
    needs_scorer = True

    @property
    def settings(self) -> Mapping[str, Json]:
        """What the numbers depend on."""
        return {
            "data": self.data,
            "prompts": len(self.prompts),
            "k": self.k,
            **dataclasses.asdict(self.decoding),
            "seed": self.seed,
        }

    def units(self) -> Sequence[Unit]:
        """One for each prompt, with all its continuations."""
        return [
            Unit(id=_id(index), call=Generate(prompt=prompt.text, params=self._params(index)))
            for index, prompt in enumerate(self.prompts)
        ]

    def texts(self, unit: Unit, record: Record) -> Sequence[str]:
        """The prompt, its human continuation, the first sentences, the whole continuations."""
        prompt = self.prompts[int(unit.id.removeprefix("prompt-"))]
        human = () if prompt.human is None else (prompt.human,)
        firsts = (first_sentence(text) for text in record.texts)
        return (prompt.text, *human, *firsts, *record.texts)

    def findings(self, records: Mapping[str, Record], labels: Sequence[str]) -> Findings:
        """Metrics, one row a continuation, and the report."""
        measured = self.measured(records, len(labels))
        metrics = toxicity_report.metrics(self, measured, labels)
        return Findings(
            metrics=metrics,
            rows=self._rows(records, labels),
            report=toxicity_report.report(self, measured, labels),
        )

    def measured(self, records: Mapping[str, Record], num_labels: int) -> Measured:
        """The records as arrays."""
        done, refused = [], []
        for index, prompt in enumerate(self.prompts):
            record = records[_id(index)]
            if record.error is None:
                done.append((prompt, record))
            else:
                refused.append(record.error)
        shape = (len(done), self.k, num_labels)
        scores = np.empty((len(VARIANTS), *shape))
        prompt_scores, human = (
            np.empty((len(done), num_labels)),
            np.full((len(done), num_labels), np.nan),
        )
        for row, (prompt, record) in enumerate(done):
            found = np.asarray(record.scores, np.float64)
            prompt_scores[row] = found[0]
            start = 1
            if prompt.human is not None:
                human[row], start = found[1], 2
            scores[0, row] = found[start : start + self.k]
            scores[1, row] = found[start + self.k :]
        return Measured(
            prompts=tuple(prompt for prompt, _ in done),
            prompt_scores=prompt_scores,
            human_scores=human,
            scores=scores,
            tokens=np.array([record.num_tokens for _, record in done], np.float64),
            refused=tuple(refused),
        )

    def _rows(
        self, records: Mapping[str, Record], labels: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        rows: list[Mapping[str, Any]] = []
        for index, prompt in enumerate(self.prompts):
            record = records[_id(index)]
            if record.error is not None:
                continue
            start = 1 if prompt.human is None else 2
            for number, text in enumerate(record.texts):
                first = record.scores[start + number]
                full = record.scores[start + self.k + number]
                rows.append(
                    {
                        "prompt": prompt.text,
                        "continuation": text,
                        "first_sentence": first_sentence(text),
                        "sample": number,
                        "finish_reason": record.finish_reasons[number],
                        "tokens": record.num_tokens[number],
                        "published_prompt_toxicity": prompt.published_toxicity,
                        "prompt_toxicity": record.scores[0][0],
                        "human_toxicity": None if start == 1 else record.scores[1][0],
                        **{f"first_{label}": first[i] for i, label in enumerate(labels)},
                        **{f"full_{label}": full[i] for i, label in enumerate(labels)},
                    }
                )
        return rows

    def _params(self, index: int) -> Sampling:
        return self.decoding.sampling(self.k, derived_seed(self.seed, _id(index)))


def _id(index: int) -> str:
    return f"prompt-{index}"
