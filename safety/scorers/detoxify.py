"""The reference: the detoxify package with all its models, as its authors run them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from safety.scorers.checkpoint import Checkpoint, load_detoxify, read_checkpoint
from safety.scorers.windows import MAX_CHARACTERS, highest, windows

if TYPE_CHECKING:
    from detoxify import Detoxify


class DetoxifyScorer:
    """Detoxify's `predict`, a few texts at a time."""

    def __init__(self, detoxify: Detoxify, checkpoint: Checkpoint, batch: int = 16) -> None:
        """Score with a loaded model, `batch` texts at once."""
        if batch < 1:
            raise ValueError(f"batch={batch} must be 1 or more")
        self._detoxify = detoxify
        self._checkpoint = checkpoint
        self._batch = batch

    @classmethod
    def load(cls, name: str, device: str = "cpu", batch: int = 16) -> DetoxifyScorer:
        """Load one of Detoxify's types, or a checkpoint file.

        The folder of a file may hold `config.json` and the tokenizer's files; if not, they come
        from the hub.

        Raises:
            UnknownScorerError: The name is neither a type nor a file.
            CheckpointError: Weights, configuration or tokenizer cannot be had, or do not fit.
        """
        checkpoint = read_checkpoint(name)
        return cls(load_detoxify(checkpoint, device), checkpoint, batch)

    @property
    def detoxify(self) -> Detoxify:
        """The package's own object."""
        return self._detoxify

    @property
    def name(self) -> str:
        """Such as `detoxify-original`."""
        return f"detoxify-{self._checkpoint.name}"

    @property
    def version(self) -> str:
        """The package's version and the first 12 hex digits of the checkpoint's SHA-256."""
        return f"{importlib.metadata.version('detoxify')}+{self._checkpoint.digest}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the checkpoint; the unbiased models have `sexual_explicit` too."""
        return self._checkpoint.labels

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Scorer`; a text of more than 1,500 characters is scored in windows."""
        pieces, owners = windows(texts, MAX_CHARACTERS)
        scores = np.zeros((len(pieces), len(self.labels)), np.float32)
        for start in range(0, len(pieces), self._batch):
            batch = pieces[start : start + self._batch]
            predicted = self._detoxify.predict(batch)
            for column, label in enumerate(self.labels):
                scores[start : start + len(batch), column] = predicted[label]
        return highest(scores, owners, len(texts))
