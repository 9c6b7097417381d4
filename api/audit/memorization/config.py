"""The settings of `talipot audit memorization`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from api.audit.config import RunConfig, TargetConfig, check_range
from model.errors import ConfigError

_MAX_TOKENS = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorizationConfig:
    """Settings of `talipot audit memorization`.

    Attributes:
        data: The training text: a corpus file or a folder of them, as for `talipot index build`.
        held_out: Text that was never trained on, as control.
        index: Index of the training text, to count how often a passage stands there: an embedded
            model's name, or a folder or file of `talipot index build`.
        passages: Passages drawn from the training text, and as many from the held-out text.
        prompt_lengths: Tokens of the prompts; with several, the extraction curve.
        continuation_tokens: Tokens that the model goes on by.
        tokenizer: Model whose tokenizer counts tokens, by name or folder; must be the audited
            model's own, which it is by itself where no --target is given.
        run: Where the run is kept.
        target: Which model.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    data: Path = dataclasses.field(metadata={"flag": "-d"})
    held_out: Path | None = None
    index: str | None = None
    passages: int = dataclasses.field(default=1000, metadata={"flag": "-n"})
    prompt_lengths: tuple[int, ...] = (50,)
    continuation_tokens: int = 50
    tokenizer: str | None = None
    run: RunConfig = dataclasses.field(
        default_factory=RunConfig, metadata={"panel": "Run", "only": ("out", "seed", "parquet")}
    )
    target: TargetConfig = dataclasses.field(
        default_factory=TargetConfig, metadata={"panel": "Model"}
    )

    def __post_init__(self) -> None:
        """Check every field of our own."""
        check_range("passages", self.passages, 1, 1 << 20)
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
