"""The embedded network behind the words' vectors, in numpy; `safety/kernels` has the same in C++.

The words of all texts lie in one array, rows of zeros between them, as many as the widest
convolution reaches: each convolution is then three products over the whole array.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety import kernels
from safety.scorers.embedded.weights import Floats, Weights

_MOST_PRODUCTS_ON_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS computes a product on one thread."""


class Layers(Protocol):
    """Keeps the vectors of words, and scores texts of words that it keeps."""

    def learn(self, vector: Floats) -> int:
        """The number of a word's vector, float32[width], counted from 0; none of it is negative."""

    def clear(self) -> None:
        """Forget all words."""

    def logits(self, words: NDArray[np.int32], lengths: NDArray[np.int64]) -> Floats:
        """Score texts.

        Args:
            words: Their words' numbers, one text behind the other.
            lengths: Words of each, 1 or more, together as many as there are.

        Returns:
            float32[texts, labels].
        """


def make_layers(weights: Weights) -> Layers:
    """Of C++ where that is available, else of numpy."""
    if not kernels.is_available():
        return NumpyLayers(weights)
    return kernels.NetworkKernel(
        weights.blocks, weights.attention, weights.hidden, weights.hidden_bias, weights.output
    )


class NumpyLayers:
    """See `Layers`."""

    def __init__(self, weights: Weights) -> None:
        """Keep no words yet."""
        self._weights = weights
        self._gap = max(block.dilation for block in weights.blocks)
        self._count = 0
        self._table = np.zeros((1024, weights.projection.shape[1]), np.float32)  # 0 is for gaps

    def learn(self, vector: Floats) -> int:
        """See `Layers`."""
        number = self._count
        self._count += 1
        if self._count == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        self._table[self._count] = vector
        return number

    def clear(self) -> None:
        """See `Layers`."""
        self._count = 0

    def logits(self, words: NDArray[np.int32], lengths: NDArray[np.int64]) -> Floats:
        """See `Layers`."""
        weights = self._weights
        rows, starts = self._layout(words, lengths)
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
        return _product(hidden, weights.output)

    def _layout(
        self, words: NDArray[np.int32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row of each word in the table, 0 in the gaps; where each text starts."""
        starts = np.cumsum(lengths + self._gap) - (lengths + self._gap)
        rows = np.zeros(len(words) + self._gap * len(lengths), np.intp)
        gaps_before = np.repeat(np.arange(len(lengths)) * self._gap, lengths)
        rows[np.arange(len(words)) + gaps_before] = words + 1
        return rows, starts


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
