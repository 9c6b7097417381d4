"""The embedded network in numpy, over any number of texts without padding them to one length.

The words of all texts lie in one array, rows of zeros between them, as many as the widest
convolution reaches: each convolution is then three products over the whole array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safety.scorers.embedded.weights import Floats, Weights
from safety.scorers.embedded.words import pieces

_MOST_PRODUCTS_ON_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS computes a product on one thread."""


class Network:
    """Words in, logits out; keeps the vectors of words that it has met."""

    def __init__(self, weights: Weights, max_cached_words: int = 100_000) -> None:
        """Vectors of at most `max_cached_words` words are kept, 0.4 kB each."""
        self._weights = weights
        self._width = weights.projection.shape[1]
        self._gap = max(block.dilation for block in weights.blocks)
        self._max_cached_words = max_cached_words
        self._rows: dict[str, int] = {}
        self._table = np.zeros((1024, self._width), np.float32)

    def logits(self, texts: Sequence[Sequence[str]]) -> Floats:
        """Score texts, each a sequence of one word or more.

        Returns:
            float32[texts, labels], calibrated.
        """
        weights = self._weights
        rows, starts = self._layout(texts)
        states = self._table[rows]
        mask = (rows != 0).astype(np.float32)[:, None]
        for block in weights.blocks:
            change = _convolution(states, block.kernel, block.dilation)
            change += block.bias
            np.maximum(change, 0, out=change)
            change *= mask
            states += change
        # The gaps are zero and the states positive, so neither maximum nor sums see the gaps.
        # einsum computes on one thread: see _product.
        scores = np.einsum("rw,w->r", states, weights.attention)
        importance = np.exp(np.minimum(scores, 30))[:, None] * mask
        largest = np.maximum.reduceat(states, starts, axis=0)
        average = np.add.reduceat(states * importance, starts, axis=0)
        average /= np.add.reduceat(importance, starts, axis=0)
        pooled = np.concatenate([largest, average], axis=1)
        hidden = np.maximum(_product(pooled, weights.hidden) + weights.hidden_bias, 0)
        logits = _product(hidden, weights.output) + weights.output_bias
        return np.asarray(logits * weights.calibration[:, 0] + weights.calibration[:, 1])

    def _layout(self, texts: Sequence[Sequence[str]]) -> tuple[NDArray[np.intp], ...]:
        """Row of each word in the table, 0 in the gaps; where each text starts."""
        if len(self._rows) > self._max_cached_words:
            self._rows.clear()
        known = self._rows
        gap = [0] * self._gap
        rows: list[int] = []
        starts: list[int] = []
        for words in texts:
            starts.append(len(rows))
            for word in words:
                row = known.get(word)
                rows.append(self._learn(word) if row is None else row)
            rows += gap
        return np.array(rows, np.intp), np.array(starts, np.intp)

    def _learn(self, word: str) -> int:
        row = len(self._rows) + 1
        if row == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        weights = self._weights
        vector = np.einsum("e,ew->w", self.vector(word), weights.projection)
        self._table[row] = np.maximum(vector + weights.projection_bias, 0)
        self._rows[word] = row
        return row

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


def _convolution(states: Floats, kernel: Floats, dilation: int) -> Floats:
    """float32[rows, width]: each row from the rows `dilation` before it, itself, and after it."""
    width = states.shape[1]
    out = _product(states, kernel[width : 2 * width])
    out[dilation:] += _product(states[:-dilation], kernel[:width])
    out[:-dilation] += _product(states[dilation:], kernel[2 * width :])
    return out


def _product(rows: Floats, matrix: Floats) -> Floats:
    """`rows @ matrix`, in blocks so small that OpenBLAS keeps to the thread that called.

    Its threads wait for one another by spinning: beside a model that is being served they cost
    three times the CPU time, and most of a score's latency, for products as small as these.
    """
    block = max(1, _MOST_PRODUCTS_ON_ONE_THREAD // matrix.size)
    if len(rows) <= block:
        return np.asarray(rows @ matrix)
    out = np.empty((len(rows), matrix.shape[1]), np.float32)
    whole = len(rows) - len(rows) % block
    blocks = rows[:whole].reshape(-1, block, rows.shape[1])
    np.matmul(blocks, matrix, out=out[:whole].reshape(-1, block, matrix.shape[1]))
    np.matmul(rows[whole:], matrix, out=out[whole:])
    return out
