"""The embedded scorer's network after the words' vectors."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.kernels.library import level, library

_PANEL = 32  # columns, as in src/products.h

Floats = NDArray[np.float32]


class Block(Protocol):
    """A residual convolution over three words; see `safety.scorers.embedded.weights.Block`."""

    @property
    def kernel(self) -> Floats:
        """float32[3 * width, width]."""

    @property
    def bias(self) -> Floats:
        """float32[width]."""

    @property
    def dilation(self) -> int:
        """Distance of the words it sees."""


class NetworkKernel:
    """Vectors in, logits out; keeps the vectors, and what the first convolution makes of each.

    Not for several threads at once. Texts are computed each for itself: a text's logits are the
    same to the bit whatever is scored with it.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        attention: Floats,
        hidden: Floats,
        hidden_bias: Floats,
        output: Floats,
    ) -> None:
        """Copy the weights; shapes as in `safety.scorers.embedded.weights.Weights`, at most
        32 labels.
        """
        self._width = _whole_panels(len(attention))
        self._labels = output.shape[1]
        width, narrow = self._width, len(attention)
        pooled = np.concatenate([_padded(half, width) for half in np.split(hidden, [narrow])])
        height = _whole_panels(hidden.shape[1])
        arrays = (
            _padded_vector(attention, width),
            _panels(pooled),
            _padded_vector(hidden_bias, height),
            _panels(_padded(output, height)),
        )
        self._network: int = library().talipot_network_new(
            width, height, *(array.ctypes.data for array in arrays)
        )
        weakref.finalize(self, library().talipot_network_free, self._network)
        for block in blocks:
            taps = [_padded(tap, width) for tap in np.split(block.kernel, 3)]
            panels = _panels(np.concatenate(taps))
            bias = _padded_vector(block.bias, width)
            library().talipot_network_add_block(
                self._network, panels.ctypes.data, bias.ctypes.data, block.dilation
            )

    def learn(self, vector: Floats) -> int:
        """The number of a word's vector, float32[width], counted from 0; none of it is negative."""
        padded = _padded_vector(vector, self._width)
        number: int = library().talipot_network_learn(self._network, padded.ctypes.data, level())
        return number

    def clear(self) -> None:
        """Forget all words."""
        library().talipot_network_clear(self._network)

    def logits(self, words: NDArray[np.int32], lengths: NDArray[np.int64]) -> Floats:
        """Score texts.

        Args:
            words: Their words' numbers, one text behind the other.
            lengths: Words of each, 1 or more, together as many as there are.

        Returns:
            float32[texts, labels].
        """
        logits = np.empty((len(lengths), _PANEL), np.float32)
        library().talipot_network_score(
            *(self._network, words.ctypes.data, lengths.ctypes.data, len(lengths)),
            *(logits.ctypes.data, level()),
        )
        return logits[:, : self._labels]


def _whole_panels(size: int) -> int:
    return -(-size // _PANEL) * _PANEL


def _padded_vector(vector: Floats, size: int) -> Floats:
    padded = np.zeros(size, np.float32)
    padded[: len(vector)] = vector
    return padded


def _padded(matrix: Floats, rows: int) -> Floats:
    """With rows and columns of zeros: float32[rows, whole panels]."""
    padded = np.zeros((rows, _whole_panels(matrix.shape[1])), np.float32)
    padded[: len(matrix), : matrix.shape[1]] = matrix
    return padded


def _panels(matrix: Floats) -> Floats:
    """A matrix as the kernels read it: float32[columns / 32, rows, 32]."""
    rows, columns = matrix.shape
    panels = matrix.reshape(rows, columns // _PANEL, _PANEL).transpose(1, 0, 2)
    return np.ascontiguousarray(panels)
