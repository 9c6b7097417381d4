"""What is done about harmful text: how strict, by which labels, how much is held back."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias, get_args

SafetyAction: TypeAlias = Literal["off", "annotate", "redact", "block"]
SAFETY_ACTIONS: tuple[SafetyAction, ...] = get_args(SafetyAction)
"""From the mildest to the strictest."""
MIN_WINDOW_TOKENS, MAX_WINDOW_TOKENS = 1, 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SafetyPolicy:
    """How one text is watched.

    Attributes:
        action: off; annotate scores and changes nothing; redact blacks out what reaches the
            threshold; block ends the text before it.
        threshold: Score from which a label counts, 0 to 1.
        labels: Those that count; None for all of the scorer's.
        window_tokens: Most tokens that are held back until they are scored; a sentence's end comes
            first where there is one.
        prompt: Whether the prompt is scored too; one that reaches the threshold is not continued
            under redact and block.

    Raises:
        ValueError: A field is out of range; the message names field, value and limit.
    """

    action: SafetyAction = "off"
    threshold: float = 0.5
    labels: frozenset[str] | None = None
    window_tokens: int = 32
    prompt: bool = False

    def __post_init__(self) -> None:
        """Check every field; which labels there are only a scorer knows."""
        if self.action not in SAFETY_ACTIONS:
            raise ValueError(f"action={self.action!r} must be one of {SAFETY_ACTIONS}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be from 0 to 1")
        if self.labels is not None and not self.labels:
            raise ValueError("labels=[] must name at least 1 label")
        if not MIN_WINDOW_TOKENS <= self.window_tokens <= MAX_WINDOW_TOKENS:
            raise ValueError(
                f"window_tokens={self.window_tokens} must be from {MIN_WINDOW_TOKENS} to "
                f"{MAX_WINDOW_TOKENS}"
            )

    def tightened_by(self, other: SafetyPolicy) -> SafetyPolicy:
        """The policy that is at least as strict as both, field by field.

        A longer window is the stricter one: more text is decided together. A policy that is off
        says nothing about the other fields; if both are, it is the first one's.
        """
        if other.action == "off":
            return self
        if self.action == "off":
            return other
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = self.labels | other.labels
        return SafetyPolicy(
            action=max(self.action, other.action, key=SAFETY_ACTIONS.index),
            threshold=min(self.threshold, other.threshold),
            labels=labels,
            window_tokens=max(self.window_tokens, other.window_tokens),
            prompt=self.prompt or other.prompt,
        )
