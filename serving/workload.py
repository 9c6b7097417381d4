"""What a step is asked to do, as far as its cost goes."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from model.errors import ConfigError

Phase: TypeAlias = Literal["prefill", "decode"]
WeightFormat: TypeAlias = Literal["int8", "bf16"]

BYTES_PER_WEIGHT: dict[WeightFormat, int] = {"int8": 1, "bf16": 2}
"""Bytes of one weight by format."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What one step is asked to do.

    Attributes:
        phase: Prefill runs whole prompts of `context` tokens, decode one token of each sequence.
        batch: Sequences.
        context: Tokens a sequence: all of the prompt, or those already in the cache.
        weights: How weights are stored; products are bfloat16 in both cases.

    Raises:
        ConfigError: A count is below 1 or a name unknown.
    """

    phase: Phase
    batch: int
    context: int
    weights: WeightFormat

    def __post_init__(self) -> None:
        """Check every field."""
        for field in ("batch", "context"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        if self.phase not in ("prefill", "decode"):
            raise ConfigError(f"phase={self.phase!r} must be one of ('prefill', 'decode')")
        if self.weights not in BYTES_PER_WEIGHT:
            raise ConfigError(f"weights={self.weights!r} must be one of {tuple(BYTES_PER_WEIGHT)}")

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model (B·L)."""
        return self.batch * (self.context if self.phase == "prefill" else 1)
