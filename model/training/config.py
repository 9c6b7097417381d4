"""What a training run is: one TOML file, read into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from model.checkpoint.native import WeightFormat
from model.config import PaLMConfig
from model.errors import ConfigError
from model.training.field_types import check_types

_Section = TypeVar("_Section")


def _require(condition: bool, field: str, value: object, limit: str) -> None:
    if not condition:
        raise ConfigError(f"{field}={value!r} must be {limit}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The text that a run reads.

    Attributes:
        train: JSON-lines files (`.jsonl`, `.jsonl.xz`) of documents with `id` and `text`.
        repeats: How many passes over each file of `train` make one epoch; empty means one each.
        heldout: A file that is only ever evaluated on, or None.
        tokenizer: SentencePiece model file.
        cache_dir: Where tokenized documents are kept.
    """

    train: tuple[str, ...]
    tokenizer: str
    repeats: tuple[int, ...] = ()
    heldout: str | None = None
    cache_dir: str = "runs/tokens"

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "data")
        _require(len(self.train) > 0, "data.train", self.train, "a list of at least one file")
        _require(
            len(self.repeats) in (0, len(self.train)) and all(r >= 1 for r in self.repeats),
            "data.repeats",
            self.repeats,
            f"empty, or {len(self.train)} integers of at least 1 (one for each train file)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """From `step` on, a batch is `batch_size` sequences of `seq_len` tokens (PaLM: 512 → 2048)."""

    step: int
    batch_size: int
    seq_len: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "stages")
        _require(self.step >= 0, "stages.step", self.step, "at least 0")
        _require(self.batch_size >= 1, "stages.batch_size", self.batch_size, "at least 1")
        _require(self.seq_len >= 2, "stages.seq_len", self.seq_len, "at least 2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """PaLM, section 5: Adafactor without factorization.

    Attributes:
        learning_rate: Value while held; scaled by the RMS of each parameter.
        hold_steps: Steps before the decay with 1/sqrt(step) begins.
        cooldown_steps: The last steps fall linearly to zero (0 is the paper's schedule; a short
            run gains much from it).
        beta1: Momentum.
        beta2_power: Second moments decay with 1 - step ** -beta2_power.
        clip_norm: Global gradient norm.
        z_loss: Weight of log²Z.
    """

    learning_rate: float = 1e-2
    hold_steps: int = 10_000
    cooldown_steps: int = 0
    beta1: float = 0.9
    beta2_power: float = 0.8
    clip_norm: float = 1.0
    z_loss: float = 1e-4

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "optimizer")
        rate = self.learning_rate
        _require(0 < rate < math.inf, "optimizer.learning_rate", rate, "positive and finite")
        _require(self.hold_steps >= 1, "optimizer.hold_steps", self.hold_steps, "at least 1")
        _require(self.cooldown_steps >= 0, "optimizer.cooldown_steps", self.cooldown_steps, "≥ 0")
        _require(0 <= self.beta1 < 1, "optimizer.beta1", self.beta1, "in [0, 1)")
        _require(0 < self.beta2_power <= 1, "optimizer.beta2_power", self.beta2_power, "in (0, 1]")
        _require(self.clip_norm > 0, "optimizer.clip_norm", self.clip_norm, "positive")
        _require(self.z_loss >= 0, "optimizer.z_loss", self.z_loss, "at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikeConfig:
    """PaLM, section 5.1: after a loss spike, go back and skip the batches around it.

    Attributes:
        threshold: A step spikes when its loss passes the running median by this many nats.
        window: Steps in the running median.
        rewind_steps: How far before the spike training restarts (paper: about 100).
        skip_batches: How many batches are left out from there (paper: 200 to 500).
        max_rewinds: A run that spikes more often than this stops with an error.
    """

    threshold: float = 1.5
    window: int = 64
    rewind_steps: int = 100
    skip_batches: int = 300
    max_rewinds: int = 20

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "spikes")
        _require(self.threshold > 0, "spikes.threshold", self.threshold, "positive")
        _require(self.window >= 2, "spikes.window", self.window, "at least 2")
        _require(self.rewind_steps >= 0, "spikes.rewind_steps", self.rewind_steps, "at least 0")
        _require(
            self.skip_batches > self.rewind_steps,
            "spikes.skip_batches",
            self.skip_batches,
            f"above spikes.rewind_steps={self.rewind_steps}, or the same batch comes again",
        )
        _require(self.max_rewinds >= 0, "spikes.max_rewinds", self.max_rewinds, "at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A whole run.

    Attributes:
        model: Shape of the model.
        data: Its text.
        optimizer: The recipe.
        spikes: What to do after a loss spike.
        stages: Batch shapes over time; the first begins at step 0.
        steps: Optimizer steps in the run.
        run_dir: Where checkpoints and metrics go.
        seed: Seeds weights and data order.
        checkpoint_every: Steps between checkpoints.
        keep: Checkpoints kept.
        log_every: Steps between progress lines and metrics records.
        eval_every: Steps between evaluations on the held-out file (0: only at the end).
        eval_tokens: Held-out tokens read by an evaluation during the run (the last reads all).
        compute_dtype: What matrix products run in; weights, activations and sums are float32. PaLM
            trained with bfloat16 products, which are the faster ones wherever there are kernels
            for them.
        model_axis: Devices along the mesh's model axis.
        peak_flops: The machine's matmul peak in FLOP/s for MFU; None measures it.
        export_dir: Folder for the finished model; None is `model` in `run_dir`.
        export_format: How its weights are stored.
    """

    model: PaLMConfig
    data: DataConfig
    stages: tuple[Stage, ...]
    steps: int
    run_dir: str
    optimizer: OptimizerConfig = OptimizerConfig()
    spikes: SpikeConfig = SpikeConfig()
    seed: int = 0
    checkpoint_every: int = 100
    keep: int = 3
    log_every: int = 10
    eval_every: int = 0
    eval_tokens: int = 65_536
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    model_axis: int = 1
    peak_flops: float | None = None
    export_dir: str | None = None
    export_format: WeightFormat = "float32"

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self)
        _require(self.steps >= 1, "steps", self.steps, "at least 1")
        for field in ("checkpoint_every", "keep", "log_every", "eval_tokens", "model_axis"):
            _require(getattr(self, field) >= 1, field, getattr(self, field), "at least 1")
        _require(self.eval_every >= 0, "eval_every", self.eval_every, "at least 0")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2**63 - 1")
        peak = self.peak_flops
        _require(peak is None or 0 < peak < math.inf, "peak_flops", peak, "positive and finite")
        starts = [stage.step for stage in self.stages]
        _require(
            bool(starts) and starts[0] == 0 and starts == sorted(set(starts)),
            "stages",
            starts,
            "stages whose steps start at 0 and rise",
        )
        longest = max(stage.seq_len for stage in self.stages)
        _require(
            longest <= self.model.max_seq_len,
            "stages.seq_len",
            longest,
            f"at most model.max_seq_len={self.model.max_seq_len}",
        )
        _require(
            self.optimizer.cooldown_steps <= self.steps,
            "optimizer.cooldown_steps",
            self.optimizer.cooldown_steps,
            f"at most steps={self.steps}",
        )

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """Index and stage in force at `step`."""
        index = max(i for i, stage in enumerate(self.stages) if stage.step <= step)
        return index, self.stages[index]

    @classmethod
    def from_toml(cls, path: Path) -> TrainingConfig:
        """Read a run's TOML file; relative paths in it stay relative to the working directory.

        Raises:
            ConfigError: The file is missing, is not TOML, or has an unknown or bad value.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"training config {path} does not exist") from error
        except OSError as error:
            raise ConfigError(f"cannot read training config {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"training config {path} is not valid TOML: {error}") from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Build from nested mappings, as TOML gives them.

        Raises:
            ConfigError: A key is unknown, missing or of a bad value.
        """
        top = dict(values)
        top["model"] = _model(top.get("model", {}))
        top["data"] = _section(DataConfig, "data", top.get("data", {}))
        top["optimizer"] = _section(OptimizerConfig, "optimizer", top.get("optimizer", {}))
        top["spikes"] = _section(SpikeConfig, "spikes", top.get("spikes", {}))
        stages = top.get("stages", [])
        _require(isinstance(stages, list | tuple), "stages", stages, "a list of tables")
        top["stages"] = tuple(_section(Stage, "stages", stage) for stage in stages)
        return _section(cls, "training config", top)


def _model(values: object) -> PaLMConfig:
    if isinstance(values, Mapping) and "preset" in values:
        changes = dict(values)
        preset = PaLMConfig.preset(changes.pop("preset"))
        return PaLMConfig.from_dict({**preset.to_dict(), **changes})
    return PaLMConfig.from_dict(values)  # type: ignore[arg-type]  # it checks what it is given


def _section(kind: type[_Section], name: str, values: object) -> _Section:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name}={values!r} must be a table")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    known = {field.name for field in fields}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"unknown keys {unknown} in {name}; known: {sorted(known)}")
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    if missing := sorted(needed - set(values)):
        raise ConfigError(f"{name} lacks the keys {missing}")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
