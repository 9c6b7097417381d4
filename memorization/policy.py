"""What is done about recited training text: from how many tokens on, and what then."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias, get_args

MemorizationAction: TypeAlias = Literal["off", "annotate", "block", "avoid"]
MEMORIZATION_ACTIONS: tuple[MemorizationAction, ...] = get_args(MemorizationAction)
"""From the mildest to the strictest."""
MIN_SPAN_TOKENS, MAX_SPAN_TOKENS = 8, 1024
DEFAULT_NGRAM = 10
"""Tokens of the n-grams that an index is built to let requests avoid."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorizationPolicy:
    """How one text is compared with the training data.

    Attributes:
        action: off; annotate names what was recited and changes nothing; block ends the text
            before so many consecutive training tokens have left; avoid chooses other tokens, so
            that so many never come.
        min_tokens: Consecutive training tokens that count as recited.

    Raises:
        ValueError: A field is out of range; the message names field, value and limit.
    """

    action: MemorizationAction = "off"
    min_tokens: int = 50

    def __post_init__(self) -> None:
        """Check every field."""
        if self.action not in MEMORIZATION_ACTIONS:
            raise ValueError(f"action={self.action!r} must be one of {MEMORIZATION_ACTIONS}")
        if not MIN_SPAN_TOKENS <= self.min_tokens <= MAX_SPAN_TOKENS:
            raise ValueError(
                f"min_tokens={self.min_tokens} must be from {MIN_SPAN_TOKENS} to {MAX_SPAN_TOKENS}"
            )

    def tightened_by(self, other: MemorizationPolicy) -> MemorizationPolicy:
        """The policy that is at least as strict as both; one that is off says nothing else."""
        if other.action == "off":
            return self
        if self.action == "off":
            return other
        return MemorizationPolicy(
            action=max(self.action, other.action, key=MEMORIZATION_ACTIONS.index),
            min_tokens=min(self.min_tokens, other.min_tokens),
        )
