"""Platt scaling (Platt 1999): the line that makes probabilities of logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.embedded.scorer import EmbeddedScorer
from safety.scorers.embedded.training.sources import labelled_texts

Floats = NDArray[np.float64]
_PERSPECTIVE = {"cat-gn", "cat-gc", "rtp"}
_MAX_STEPS = 50


def logits_of(probabilities: NDArray[np.floating]) -> Floats:
    """Their log odds, finite for 0 and 1 too."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def platt(logits: Floats, targets: Floats, weights: Floats | None = None) -> tuple[float, float]:
    """Slope and offset of least cross-entropy, by Newton's method.

    Args:
        logits: float64[texts].
        targets: float64[texts], probabilities.
        weights: float64[texts], of each text in the sum; equal ones if left out.

    Raises:
        ValueError: Fewer than two different logits count, or the sum has no least value, as when
            a threshold parts targets of 0 and 1.
    """
    counts = np.ones_like(logits) if weights is None else weights
    if len(np.unique(logits[counts > 0])) < 2:
        raise ValueError("Platt scaling needs two different logits or more")
    inputs = np.stack([logits, np.ones_like(logits)], axis=1)
    line = np.array([1.0, 0.0])
    for _ in range(_MAX_STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(inputs @ line, -30, 30)))
        gradient = inputs.T @ (counts * (fitted - targets))
        curvature = (inputs * (counts * fitted * (1 - fitted))[:, None]).T @ inputs
        change = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        line -= np.clip(change, -1, 1)
        if np.abs(change).max() < 1e-6:
            return float(line[0]), float(line[1])
    raise ValueError(f"Platt scaling found no line after {_MAX_STEPS} steps: {line}")


def calibration(uncalibrated: Path, data: Path) -> NDArray[np.float32]:
    """Lines for the labels of weights that have none yet, on the validation parts of all sets.

    `toxicity` means Perspective's probability, so only what Perspective judged counts for it.

    Returns:
        float32[labels, 2]: slope and offset of each.
    """
    texts = labelled_texts(data, "validation")
    logits = logits_of(EmbeddedScorer(uncalibrated).score([text.text for text in texts]))
    targets, weights = (np.stack(part) for part in zip(*(t.targets() for t in texts), strict=True))
    by_perspective = np.array([text.source in _PERSPECTIVE for text in texts])
    weights[~by_perspective, TOXICITY_LABELS.index("toxicity")] = 0
    return np.array(
        [
            platt(logits[:, label], targets[:, label], weights[:, label])
            for label in range(len(TOXICITY_LABELS))
        ],
        np.float32,
    )
