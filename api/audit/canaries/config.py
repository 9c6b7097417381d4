"""The settings of `talipot audit canaries`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from api.audit.config import ENGINE_OPTIONS, RunConfig, audit_engine, check_range
from api.config import DEFAULT_MODEL
from memorization.studies.passages import Cut
from model.config import PaLMConfig
from model.errors import ConfigError
from serving.config import EngineConfig

HEAD_DIM = 32
_SHAPE = re.compile(r"([0-9]{1,5})x([0-9]{1,3})")


def _unrounded_engine() -> EngineConfig:
    # What training has put into the weights is asked, not what 8 bits of them keep.
    return dataclasses.replace(audit_engine(), quantize="none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    """How the models of the experiment are trained; all of them see the same text in one order.

    Attributes:
        shapes: Models, as WIDTHxLAYERS; may be given again.
        characters: Characters of the corpus that are read beside the canaries.
        seq_len: Tokens of a sequence.
        batch_size: Sequences of a step.
        learning_rate: Of Adafactor, scaled by the size of each parameter.
        compute_dtype: What matrix products run in.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    shapes: tuple[str, ...] = ("32x2", "96x3", "192x4")
    characters: int = 2_000_000
    seq_len: int = 128
    batch_size: int = 16
    learning_rate: float = 1e-2
    compute_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Check every field."""
        if not self.shapes or len(set(self.shapes)) < len(self.shapes):
            raise ConfigError(f"shapes={self.shapes} must be some shapes, each of them once")
        for shape in self.shapes:
            _parsed(shape)
        check_range("characters", self.characters, 0, 1 << 34)
        check_range("seq_len", self.seq_len, 2, 1 << 14)
        check_range("batch_size", self.batch_size, 1, 1 << 14)
        check_range("learning_rate", self.learning_rate, 1e-8, 1.0)

    def model(self, shape: str, vocab_size: int, tokens: int) -> PaLMConfig:
        """A model of a shape: PaLM's block with heads of 32 and a feed-forward layer of 4 widths.

        Args:
            shape: One of `shapes`.
            vocab_size: Number of token ids.
            tokens: Tokens that it must hold at least.
        """
        width, layers = _parsed(shape)
        return PaLMConfig(
            name=shape,
            vocab_size=vocab_size,
            num_layers=layers,
            d_model=width,
            num_heads=width // HEAD_DIM,
            head_dim=HEAD_DIM,
            d_ff=4 * width,
            max_seq_len=max(self.seq_len, tokens),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanariesConfig:
    """Settings of `talipot audit canaries`.

    Attributes:
        data: Text to train on beside the canaries: a corpus file or a folder of them.
        repetitions: How often a canary stands in the training text; 0 is the control.
        canaries: Canaries for each of the repetitions; one number for all of them, or as many.
        prompt_tokens: Tokens of a canary that the model is given.
        continuation_tokens: Tokens that it must go on by.
        tokenizer: Model whose SentencePiece tokenizer the trained models get, by name or folder.
        trained: The models.
        run: Where the experiment is kept.
        engine: How the trained models are run.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    data: Path = dataclasses.field(metadata={"flag": "-d"})
    repetitions: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
    canaries: tuple[int, ...] = (50, 50, 50, 50, 50, 50, 50, 24, 20, 20)
    prompt_tokens: int = 25
    continuation_tokens: int = 25
    tokenizer: str = DEFAULT_MODEL
    trained: TrainedConfig = dataclasses.field(
        default_factory=TrainedConfig, metadata={"panel": "Training"}
    )
    run: RunConfig = dataclasses.field(
        default_factory=RunConfig, metadata={"panel": "Run", "only": ("out", "seed", "parquet")}
    )
    engine: EngineConfig = dataclasses.field(
        default_factory=_unrounded_engine, metadata={"panel": "Engine", "only": ENGINE_OPTIONS}
    )

    def __post_init__(self) -> None:
        """Check every field of our own."""
        if not self.repetitions or len(set(self.repetitions)) < len(self.repetitions):
            raise ConfigError(
                f"repetitions={self.repetitions} must be some numbers, each of them once"
            )
        for times in self.repetitions:
            check_range("repetitions", times, 0, 1 << 20)
        if not any(self.repetitions):
            raise ConfigError(f"repetitions={self.repetitions} must have a number above 0")
        if len(self.canaries) not in (1, len(self.repetitions)):
            raise ConfigError(
                f"canaries={self.canaries} must be one number, or {len(self.repetitions)}: one for "
                "each of the repetitions"
            )
        for count in self.canaries:
            check_range("canaries", count, 1, 1 << 20)
        check_range("prompt_tokens", self.prompt_tokens, 1, 1 << 14)
        check_range("continuation_tokens", self.continuation_tokens, 1, 1 << 14)

    @property
    def counts(self) -> dict[int, int]:
        """Canaries by their repetitions, rising."""
        each = self.canaries * (len(self.repetitions) if len(self.canaries) == 1 else 1)
        return dict(sorted(zip(self.repetitions, each, strict=True)))

    @property
    def cut(self) -> Cut:
        """How a canary is cut in prompt and continuation."""
        return Cut(
            prompt_tokens=(self.prompt_tokens,), continuation_tokens=self.continuation_tokens
        )


def _parsed(shape: str) -> tuple[int, int]:
    match = _SHAPE.fullmatch(shape)
    if match is None:
        raise ConfigError(f"shapes={shape!r} must be WIDTHxLAYERS, as 96x3")
    width, layers = int(match[1]), int(match[2])
    if width < HEAD_DIM or width % HEAD_DIM or layers < 1:
        raise ConfigError(
            f"shapes={shape!r} must have a width that is a multiple of {HEAD_DIM}, and a layer "
            "at least"
        )
    return width, layers
