"""`audit bold`: are continuations about some groups more toxic, sadder or more gendered?

Dhamala et al. 2021 (BOLD): each prompt is the beginning of an encyclopedia's sentence about a
person or group. Of its five measures these are here: toxicity (this run's scorer), sentiment
(a lexicon) and gender polarity (unigrams). Regard needs a classifier of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safety.audits import bold_report, loading, words
from safety.audits.errors import AuditDataError
from safety.audits.units import Findings, Generate, Json, Record, Unit, derived_seed
from safety.text_generator import Decoding

_SUFFIX = "_prompt.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoldPrompt:
    """A prompt: `Jane Doe is an American actor who`, its domain (`gender`) and group."""

    text: str
    domain: str
    group: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A prompt's continuations, judged; means over them.

    Attributes:
        prompt: What was continued.
        toxicity: float64[labels], mean scores.
        sentiment: From -1 to 1.
        female: Share of continuations with more words of women than of men.
        male: The opposite.
        texts: The continuations.
    """

    prompt: BoldPrompt
    toxicity: tuple[float, ...]
    sentiment: float
    female: float
    male: float
    texts: tuple[str, ...]


def load_bold(path: Path) -> list[BoldPrompt]:
    """Read one of BOLD's files `DOMAIN_prompt.json`, or a folder of them.

    Raises:
        AuditDataError: A file is damaged or of another format; names file and field.
    """
    files = sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise AuditDataError(f"{path}: holds no file *{_SUFFIX}")
    return [prompt for file in files for prompt in _load_domain(file)]


def _load_domain(path: Path) -> list[BoldPrompt]:
    domain = path.name.removesuffix(_SUFFIX).removesuffix(".json")
    groups = _object(path, domain, loading.json_file(path))
    found = []
    for group, entities in groups.items():
        loading.label(path, domain, group)
        for entity, prompts in _object(path, group, entities).items():
            if not isinstance(prompts, list):
                raise AuditDataError(
                    f"{path}: field {group}.{entity} is {type(prompts).__name__}; expected a list"
                )
            for index, text in enumerate(prompts):
                if not isinstance(text, str):
                    raise AuditDataError(
                        f"{path}: field {group}.{entity}[{index}] is {text!r}; expected a text"
                    )
                if text.strip():  # the published files have some empty prompts
                    found.append(BoldPrompt(text=text.strip(), domain=domain, group=group))
    return loading.at_least_one(path, found, "prompts")


def _object(path: Path, field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AuditDataError(f"{path}: field {field} is {type(value).__name__}; expected an object")
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoldAudit:
    """Every prompt, continued `k` times.

    Attributes:
        prompts: What to continue.
        data: Name and hash of the set.
        k: Continuations of each prompt.
        decoding: How they are drawn.
        seed: Of sampling, permutations and bootstrap.
    """

    prompts: tuple[BoldPrompt, ...]
    data: str
    k: int = 1
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    seed: int = 0

    name = "bold"
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
        """One for each prompt."""
        return [
            Unit(
                id=f"prompt-{index}",
                call=Generate(
                    prompt=prompt.text,
                    params=self.decoding.sampling(
                        self.k, derived_seed(self.seed, f"prompt-{index}")
                    ),
                ),
            )
            for index, prompt in enumerate(self.prompts)
        ]

    def texts(self, unit: Unit, record: Record) -> Sequence[str]:
        """The continuations."""
        return record.texts

    def findings(self, records: Mapping[str, Record], labels: Sequence[str]) -> Findings:
        """Measures by group, one row a prompt, and the report."""
        judged = self.judged(records)
        rows = [
            {
                "domain": one.prompt.domain,
                "group": one.prompt.group,
                "prompt": one.prompt.text,
                "continuations": list(one.texts),
                **dict(zip(labels, one.toxicity, strict=True)),
                "sentiment": one.sentiment,
                "female": one.female,
                "male": one.male,
            }
            for one in judged
        ]
        refused = [record.error for record in records.values() if record.error is not None]
        comparisons = bold_report.compare(judged, self.seed)
        return Findings(
            metrics=bold_report.metrics(comparisons) | {"refused": len(refused)},
            rows=rows,
            report=bold_report.report(self, comparisons, judged, labels[0], refused),
        )

    def judged(self, records: Mapping[str, Record]) -> list[Judged]:
        """Every prompt that was not refused."""
        found = []
        for index, prompt in enumerate(self.prompts):
            record = records[f"prompt-{index}"]
            if record.error is None:
                genders = [words.gender_of(text) for text in record.texts]
                found.append(
                    Judged(
                        prompt=prompt,
                        toxicity=tuple(np.mean(record.scores, axis=0).tolist()),
                        sentiment=float(np.mean([words.sentiment(one) for one in record.texts])),
                        female=genders.count("female") / len(genders),
                        male=genders.count("male") / len(genders),
                        texts=record.texts,
                    )
                )
        return found
