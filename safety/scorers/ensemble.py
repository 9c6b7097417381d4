"""Several scorers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from safety.scorers.base import Scorer

Combination: TypeAlias = Literal["mean", "max"]


class Ensemble:
    """The weighted mean, or the highest, of what several scorers say; labels that all have."""

    def __init__(
        self,
        scorers: Sequence[Scorer],
        combination: Combination = "mean",
        weights: Sequence[float] | None = None,
    ) -> None:
        """Combine scorers.

        Args:
            scorers: One or more; the order of labels is the first one's.
            combination: `mean`, or `max`, which weights would make no probability of.
            weights: Of each scorer in the mean; all alike if not given.

        Raises:
            ValueError: There is no scorer or no label that all have, or weights do not fit.
        """
        if not scorers:
            raise ValueError("scorers is empty; an ensemble needs at least one")
        if combination not in get_args(Combination):
            raise ValueError(f"combination={combination!r} must be one of mean, max")
        self._labels = tuple(
            label for label in scorers[0].labels if all(label in s.labels for s in scorers)
        )
        if not self._labels:
            described = "; ".join(f"{s.name}: {', '.join(s.labels)}" for s in scorers)
            raise ValueError(f"scorers have no label in common ({described})")
        self._scorers = tuple(scorers)
        self._combination = combination
        self._weights = _shares(weights, combination, len(scorers))
        self._columns = [[s.labels.index(label) for label in self._labels] for s in scorers]

    @property
    def name(self) -> str:
        """Such as `mean(embedded, detoxify-original)`."""
        return f"{self._combination}({', '.join(s.name for s in self._scorers)})"

    @property
    def version(self) -> str:
        """Of each scorer, with its share in a mean."""
        shares = [""] * len(self._scorers)
        if self._combination == "mean":
            shares = [f"*{weight:.4g}" for weight in self._weights]
        return ", ".join(
            f"{scorer.name} {scorer.version}{share}"
            for scorer, share in zip(self._scorers, shares, strict=True)
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that all scorers have."""
        return self._labels

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Scorer`; the scorers run one after the other."""
        scores = np.stack(
            [
                scorer.score(texts)[:, columns]
                for scorer, columns in zip(self._scorers, self._columns, strict=True)
            ]
        )
        if self._combination == "max":
            return np.asarray(scores.max(axis=0), np.float32)
        return np.tensordot(self._weights, scores, axes=1).astype(np.float32)


def _shares(
    weights: Sequence[float] | None, combination: Combination, number: int
) -> NDArray[np.float64]:
    if weights is None:
        return np.full(number, 1 / number)
    if combination == "max":
        raise ValueError("weights can only be given with combination='mean'")
    array = np.asarray(weights, np.float64)
    if array.shape != (number,):
        raise ValueError(f"weights has {array.size} values for {number} scorers")
    if not np.isfinite(array).all() or (array < 0).any() or array.sum() <= 0:
        raise ValueError(f"weights={list(weights)} must be 0 or more, and not all 0")
    return np.asarray(array / array.sum())
