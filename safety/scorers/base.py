"""What every scorer is: texts in, one probability for each label out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

TOXICITY_LABELS = (
    "toxicity",
    "severe_toxicity",
    "obscene",
    "threat",
    "insult",
    "identity_attack",
)
"""The labels of Detoxify's original model, in its order."""


class Scorer(Protocol):
    """Scores texts; figures of two scorers are never comparable, so each says what it is."""

    @property
    def name(self) -> str:
        """What users call it, such as `embedded` or `detoxify-original`."""

    @property
    def version(self) -> str:
        """Its version and the hash of its weights, the same for the same scores."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the columns of its scores are; the first is the overall one."""

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Score each text: float32[texts, labels], probabilities in [0, 1]."""
