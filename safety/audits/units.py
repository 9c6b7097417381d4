"""An audit as its runner sees it: units of work, what came back for each, and the findings."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from safety.audits.report import Report
from safety.text_generator import Sampling

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate:
    """Continuations of one prompt."""

    prompt: str
    params: Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loglikelihood:
    """How likely some continuations are, each after its own prompt."""

    prompts: tuple[str, ...]
    continuations: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest piece of an audit that is done or not done.

    Attributes:
        id: The same in every run with the same settings, and unique in it.
        call: What is asked of the model; None where only texts are scored.
    """

    id: str
    call: Generate | Loglikelihood | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What came back for a unit.

    Attributes:
        id: The unit's.
        texts: Its continuations.
        finish_reasons: Why each of them ended.
        num_tokens: Tokens of each of them.
        loglikelihoods: Of its continuations, in natural logarithms.
        scores: float[texts, labels], for what the audit's `texts` gave, in that order.
        error: Why the model refused the unit; then there is nothing else.
    """

    id: str
    texts: tuple[str, ...] = ()
    finish_reasons: tuple[str, ...] = ()
    num_tokens: tuple[int, ...] = ()
    loglikelihoods: tuple[float, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
    error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What an audit has found.

    Attributes:
        metrics: For `summary.json`: the figures, with intervals and n.
        rows: For `results.jsonl` and `.parquet`: one flat row for each thing that was measured.
        report: For people.
    """

    metrics: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    report: Report


class Audit(Protocol):
    """One audit with its settings; the same for every run, whatever the model."""

    @property
    def name(self) -> str:
        """As in `talipot audit NAME`."""

    @property
    def settings(self) -> Mapping[str, Json]:
        """All that its numbers depend on, beside model and scorer; data by its hash."""

    @property
    def needs_model(self) -> bool:
        """Whether a unit asks something of a model."""

    @property
    def needs_scorer(self) -> bool:
        """Whether texts are scored."""

    def units(self) -> Sequence[Unit]:
        """Everything there is to do, in a fixed order."""

    def texts(self, unit: Unit, record: Record) -> Sequence[str]:
        """The texts to score for a unit, once the model has answered."""

    def findings(self, records: Mapping[str, Record], labels: Sequence[str]) -> Findings:
        """What the records of all units amount to.

        Args:
            records: By the unit's id, all of them.
            labels: The scorer's labels, the columns of `Record.scores`.
        """


def derived_seed(seed: int, name: str) -> int:
    """A unit's seed in [0, 2^63): a function of the run's seed and the unit's name alone."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
