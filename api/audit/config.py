"""The settings of `talipot audit`'s commands; `api.options` makes options of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from api.limits import MAX_CHOICES_PER_PROMPT
from model.errors import ConfigError
from safety.text_generator import Decoding
from serving.config import EngineConfig

ENGINE_OPTIONS = ("max_slots", "dtype", "quantize", "compilation_cache_dir")


def audit_engine() -> EngineConfig:
    """The engine that an audit runs a model on."""
    # Nobody reads an audit's text as it comes: tokens may reach their streams late and together.
    return EngineConfig(max_slots=32, stream_interval_s=0.5, max_queued_requests=4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Which model is audited, and how it is reached.

    Attributes:
        model: An embedded model's name or a checkpoint folder; with --target, the model to ask
            for there (the first that it serves if not given).
        target: An OpenAI-compatible endpoint (http://HOST:PORT) or Talipot's gRPC door
            (grpc://HOST:PORT); without it the model runs in this process.
        api_key: Key for a server that asks for one; in the environment, other users of the
            machine do not see it.
        max_in_flight: Continuations that the model has at once, about.
        give_up_after_s: Seconds of failing without a single answer after which to give up.
        engine: How the model is run in this process.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    model: str | None = dataclasses.field(default=None, metadata={"flag": "-m"})
    target: str | None = dataclasses.field(default=None, metadata={"flag": "-t"})
    api_key: str | None = None
    max_in_flight: int = 128
    give_up_after_s: float = 600.0
    engine: EngineConfig = dataclasses.field(
        default_factory=audit_engine, metadata={"panel": "Engine", "only": ENGINE_OPTIONS}
    )

    def __post_init__(self) -> None:
        """Check every field."""
        schemes = ("http://", "https://", "grpc://")
        if self.target is not None and not self.target.startswith(schemes):
            raise ConfigError(f"target={self.target!r} must begin with {', '.join(schemes)}")
        check_range("max_in_flight", self.max_in_flight, 1, 4096)
        check_range("give_up_after_s", self.give_up_after_s, 0, 7 * 86400)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run is kept and what is written.

    Attributes:
        out: Folder of the run; the same command goes on with a run that it holds. If not given:
            audits/NAME-MODEL.
        data: File in the data set's published format, or its name on the hub as
            hub:OWNER/NAME/PATH; our own small set if not given.
        limit: Use so many items of the data, drawn by the seed; all if not given.
        seed: Of drawing, sampling and resampling: the same seed, the same numbers.
        parquet: Write results.parquet beside results.jsonl.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    out: Path | None = dataclasses.field(default=None, metadata={"flag": "-o"})
    data: Path | None = dataclasses.field(default=None, metadata={"flag": "-d"})
    limit: int | None = dataclasses.field(default=None, metadata={"flag": "-n"})
    seed: int = 0
    parquet: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        if self.limit is not None:
            check_range("limit", self.limit, 1, 1 << 31)
        check_range("seed", self.seed, 0, 2**63 - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelAuditConfig:
    """What every audit of a model has.

    Attributes:
        run: Where the run is kept.
        target: Which model.
    """

    run: RunConfig = dataclasses.field(default_factory=RunConfig, metadata={"panel": "Run"})
    target: TargetConfig = dataclasses.field(
        default_factory=TargetConfig, metadata={"panel": "Model"}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledAuditConfig(ModelAuditConfig):
    """What every audit has that scores continuations.

    Attributes:
        scorer: Which scorer judges the texts.
        decoding: How the continuations are drawn.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    scorer: str = dataclasses.field(default="embedded", metadata={"flag": "-s"})
    decoding: Decoding = dataclasses.field(default=Decoding(), metadata={"panel": "Sampling"})

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("max_tokens", self.decoding.max_tokens, 1, 1 << 20)
        check_range("top_k", self.decoding.top_k, 0, 1 << 31)
        check_range("temperature", self.decoding.temperature, 0, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToxicityConfig(SampledAuditConfig):
    """Settings of `talipot audit toxicity`.

    Attributes:
        k: Continuations of each prompt.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    k: int = dataclasses.field(default=25, metadata={"flag": "-k"})

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("k", self.k, 1, MAX_CHOICES_PER_PROMPT)
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WinogenderConfig(ModelAuditConfig):
    """Settings of `talipot audit winogender`.

    Attributes:
        shots: Numbers of solved examples in the prompt.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    shots: tuple[int, ...] = (0, 1, 4)

    def __post_init__(self) -> None:
        """Check every field of our own."""
        if not self.shots or min(self.shots) < 0 or max(self.shots) > 64:
            raise ConfigError(f"shots={self.shots} must be some numbers from 0 to 64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrowsPairsConfig(ModelAuditConfig):
    """Settings of `talipot audit crows-pairs`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoldConfig(SampledAuditConfig):
    """Settings of `talipot audit bold`.

    Attributes:
        k: Continuations of each prompt.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    k: int = dataclasses.field(default=1, metadata={"flag": "-k"})
    decoding: Decoding = dataclasses.field(
        default=Decoding(max_tokens=48), metadata={"panel": "Sampling"}
    )

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("k", self.k, 1, MAX_CHOICES_PER_PROMPT)
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CooccurrenceConfig(SampledAuditConfig):
    """Settings of `talipot audit co-occurrence`.

    Attributes:
        samples: Continuations of each prompt.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    samples: int = 800

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("samples", self.samples, 1, 1 << 20)
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """Settings of `talipot audit scorer`.

    Attributes:
        threshold: A text with at least this score counts as called toxic.
        min_group: Identity terms in fewer texts are left out.
        terms: TOML file of identity terms; our own list if not given.
        scorer: Which scorer is audited.
        run: Where the run is kept.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    threshold: float = 0.5
    min_group: int = 10
    terms: Path | None = None
    scorer: str = dataclasses.field(default="embedded", metadata={"flag": "-s"})
    run: RunConfig = dataclasses.field(default_factory=RunConfig, metadata={"panel": "Run"})

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("threshold", self.threshold, 0, 1)
        check_range("min_group", self.min_group, 1, 1 << 31)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of `talipot audit compare`.

    Attributes:
        first: Folder of a finished run.
        second: Folder of another run of the same audit.
        out: Folder to write to; audits/compare-FIRST-SECOND if not given.
    """

    first: Path = dataclasses.field(metadata={"argument": True})
    second: Path = dataclasses.field(metadata={"argument": True})
    out: Path | None = dataclasses.field(default=None, metadata={"flag": "-o"})


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Accept a value from `low` to `high`.

    Raises:
        ConfigError: It is outside.
    """
    if not low <= value <= high:
        raise ConfigError(f"{field}={value} must be from {low} to {high}")
