"""The default scorer: works offline, scores thousands of texts a second on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.embedded.forward import Network
from safety.scorers.embedded.weights import SHIPPED, load_weights
from safety.scorers.embedded.words import WordReader

WINDOW_WORDS = 128
"""A longer text is scored in windows of so many words; its score is the highest of any."""

_STRIDE_WORDS = 96
_MAX_WORDS_AT_ONCE = 2048  # 0.7 MB for each array of the network: about what a cache holds
_PIECE_CHARACTERS = 65_536


class EmbeddedScorer:
    """Detoxify's six labels from a network of our own; its model card has the figures."""

    def __init__(self, path: Path = SHIPPED) -> None:
        """Load weights.

        Raises:
            CheckpointError: They are missing or damaged.
        """
        weights = load_weights(path)
        self._network = Network(weights)
        self._version = f"{weights.version}+{weights.digest}"
        self._read = WordReader()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """`embedded`."""
        return "embedded"

    @property
    def version(self) -> str:
        """Version of the training, and the first 12 hex digits of the weights' SHA-256."""
        return self._version

    @property
    def labels(self) -> tuple[str, ...]:
        """Detoxify's."""
        return TOXICITY_LABELS

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Scorer`; a text without a word scores 0. Safe to call from several threads."""
        scores = np.zeros((len(texts), len(TOXICITY_LABELS)), np.float32)
        windows: list[list[str]] = []
        owners: list[int] = []
        waiting = 0
        for index, text in enumerate(texts):
            words = self._words(text)
            for start in range(
                0, max(1, len(words) - (WINDOW_WORDS - _STRIDE_WORDS)), _STRIDE_WORDS
            ):
                window = words[start : start + WINDOW_WORDS]
                if not window:
                    continue
                windows.append(window)
                owners.append(index)
                waiting += len(window)
                if waiting >= _MAX_WORDS_AT_ONCE:
                    self._score(windows, owners, scores)
                    windows, owners, waiting = [], [], 0
        if windows:
            self._score(windows, owners, scores)
        return scores

    def _score(
        self, windows: list[list[str]], owners: list[int], scores: NDArray[np.float32]
    ) -> None:
        with self._lock:
            logits = self._network.logits(windows)
        np.maximum.at(scores, owners, 1 / (1 + np.exp(-logits)))

    def _words(self, text: str) -> list[str]:
        # Piece by piece, because what normalisation holds at once is many times its text.
        if len(text) <= _PIECE_CHARACTERS:
            return self._read(text)
        words: list[str] = []
        start = 0
        while start < len(text):
            end = start + _PIECE_CHARACTERS
            space = text.rfind(" ", start, end) if end < len(text) else -1
            end = space if space > start else end
            words += self._read(text[start:end])
            start = end
        return words
