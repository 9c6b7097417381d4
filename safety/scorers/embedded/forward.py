"""The embedded network: words in, logits out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from safety.scorers.embedded.layers import make_layers
from safety.scorers.embedded.weights import Floats, Weights
from safety.scorers.embedded.words import pieces


class Network:
    """Scores texts of any lengths together; remembers words that it has met.

    Not for several threads at once.
    """

    def __init__(self, weights: Weights, max_cached_words: int = 32_768) -> None:
        """About `max_cached_words` words are remembered, 1.5 kB each."""
        self._weights = weights
        self._layers = make_layers(weights)
        self._max_cached_words = max_cached_words
        self._numbers = _Numbers(self._learn)

    def logits(self, texts: Sequence[Sequence[str]]) -> Floats:
        """Score texts, each a sequence of one word or more.

        Returns:
            float32[texts, labels], calibrated.
        """
        if len(self._numbers) > self._max_cached_words:
            self._numbers.clear()
            self._layers.clear()
        words = map(self._numbers.__getitem__, itertools.chain.from_iterable(texts))
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        logits = self._layers.logits(np.fromiter(words, np.int32, lengths.sum()), lengths)
        weights = self._weights
        logits = logits + weights.output_bias
        return np.asarray(logits * weights.calibration[:, 0] + weights.calibration[:, 1])

    def _learn(self, word: str) -> int:
        weights = self._weights
        # einsum computes on one thread: beside a model that is served BLAS's threads cost more.
        vector = np.einsum("e,ew->w", self.vector(word), weights.projection)
        return self._layers.learn(np.maximum(vector + weights.projection_bias, 0))

    def vector(self, word: str) -> Floats:
        """A word's own vector, or the mean of its pieces': float32[embedding]."""
        weights = self._weights
        index = weights.vocabulary.get(word)
        if index is not None:
            own = weights.words[index].astype(np.float32) * weights.word_scales[index]
            return np.asarray(own)
        buckets = pieces(word, len(weights.pieces))
        vectors = weights.pieces[buckets].astype(np.float32) * weights.piece_scales[buckets, None]
        return np.asarray(vectors.mean(axis=0), np.float32)


class _Numbers(dict[str, int]):
    """Each word's number; a word that has none is learnt."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        super().__init__()
        self._learn = learn

    def __missing__(self, word: str) -> int:
        number = self[word] = self._learn(word)
        return number
