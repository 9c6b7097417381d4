"""The settings of `talipot audit memorization`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from api.audit.config import RunConfig, TargetConfig, check_range
from model.errors import ConfigError

_MAX_TOKENS = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeSamplesConfig:
    """What the model says by itself, and what of it counts.

    Attributes:
        samples: Free samples; 0 for none. They need --index and --held-out.
        sample_prompt_tokens: Tokens of held-out text that a sample begins after.
        sample_tokens: Tokens of a sample.
        temperature: Of the sampling.
        top_k: Draw from the k most likely tokens; 0 is off.
        trace_tokens: Shortest run of training text that counts as extracted.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    samples: int = 0
    sample_prompt_tokens: int = 5
    sample_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 40
    trace_tokens: int = 50

    def __post_init__(self) -> None:
        """Check every field."""
        check_range("samples", self.samples, 0, 1 << 24)
        check_range("sample_prompt_tokens", self.sample_prompt_tokens, 1, _MAX_TOKENS)
        check_range("sample_tokens", self.sample_tokens, 1, _MAX_TOKENS)
        check_range("temperature", self.temperature, 0, 2)
        check_range("top_k", self.top_k, 0, 1 << 31)
        check_range("trace_tokens", self.trace_tokens, 1, self.sample_tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorizationConfig:
    """Settings of `talipot audit memorization`.

    Attributes:
        data: The training text: a corpus file or a folder of them, as for `talipot index build`.
        held_out: Text that was never trained on, as control.
        index: Index of the training text, to count how often a passage stands there: an embedded
            model's name, or a folder or file of `talipot index build`.
        passages: Passages drawn from the training text, and as many from the held-out text.
        per_bin: Draw so many training passages for each bin of occurrences (1, 2-3, 4-7 …) instead;
            needs --index.
        candidates: Passages that are drawn and counted to fill the bins.
        prompt_lengths: Tokens of the prompts; with several, the extraction curve.
        continuation_tokens: Tokens that the model goes on by.
        tokenizer: Model whose tokenizer counts tokens, by name or folder; must be the audited
            model's own, which it is by itself where no --target is given.
        free: What the model says by itself.
        run: Where the run is kept.
        target: Which model.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    data: Path = dataclasses.field(metadata={"flag": "-d"})
    held_out: Path | None = None
    index: str | None = None
    passages: int = dataclasses.field(default=1000, metadata={"flag": "-n"})
    per_bin: int | None = None
    candidates: int = 20_000
    prompt_lengths: tuple[int, ...] = (50,)
    continuation_tokens: int = 50
    tokenizer: str | None = None
    free: FreeSamplesConfig = dataclasses.field(
        default_factory=FreeSamplesConfig, metadata={"panel": "Free samples"}
    )
    run: RunConfig = dataclasses.field(
        default_factory=RunConfig, metadata={"panel": "Run", "only": ("out", "seed", "parquet")}
    )
    target: TargetConfig = dataclasses.field(
        default_factory=TargetConfig, metadata={"panel": "Model"}
    )

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("passages", self.passages, 1, 1 << 20)
        check_range("candidates", self.candidates, 1, 1 << 24)
        if self.per_bin is not None:
            check_range("per_bin", self.per_bin, 1, 1 << 20)
            if self.index is None:
                raise ConfigError("per_bin is given and index is not: it counts the occurrences")
        if self.free.samples and (self.index is None or self.held_out is None):
            raise ConfigError(
                f"samples={self.free.samples} needs index, to trace them, and held_out, to begin "
                "them after text that was never trained on"
            )
        check_range("continuation_tokens", self.continuation_tokens, 1, _MAX_TOKENS)
        for length in self.prompt_lengths:
            check_range("prompt_lengths", length, 1, _MAX_TOKENS)
        if len(set(self.prompt_lengths)) < max(1, len(self.prompt_lengths)):
            raise ConfigError(
                f"prompt_lengths={self.prompt_lengths} must be some numbers, each of them once"
            )
        if self.target.target is not None and self.tokenizer is None:
            raise ConfigError(
                "tokenizer is not given: with --target, name the model or folder whose tokenizer "
                "the served model has"
            )
