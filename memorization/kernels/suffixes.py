"""Search in a suffix array."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.kernels.library import library


class _Shard(ctypes.Structure):
    """`Shard` of `src/suffixes.cpp`."""

    _fields_ = (
        ("stored", c_void_p),
        ("tokens", c_int64),
        ("suffixes", c_void_p),
        ("keys", c_void_p),
        ("key_count", c_int64),
        ("key_every", c_int64),
        ("width", c_int64),
    )


class SuffixSearch:
    """Searches one shard; `memorization.suffix_array.SuffixArray` says what it is given."""

    def __init__(
        self,
        stored: NDArray[Any],
        suffixes: NDArray[np.int32],
        keys: NDArray[np.uint64],
        key_every: int,
    ) -> None:
        """Keep the arrays, which must be contiguous, and may be memory maps."""
        self._arrays = (stored, suffixes, keys)
        self._shard = _Shard(
            stored=stored.ctypes.data,
            tokens=len(stored),
            suffixes=suffixes.ctypes.data,
            keys=keys.ctypes.data,
            key_count=len(keys),
            key_every=key_every,
            width=stored.dtype.itemsize,
        )
        self._address = ctypes.addressof(self._shard)

    def match_lengths(self, patterns: NDArray[Any], tokens: int) -> NDArray[np.int64]:
        """Tokens of the longest match at each of the first `tokens` of `patterns`.

        Args:
            patterns: Stored tokens, and behind them a word's worth of the largest value.
            tokens: How many of them are the query's.
        """
        lengths = np.zeros(tokens, np.int64)
        library().talipot_match_lengths(
            self._address, patterns.ctypes.data, tokens, lengths.ctypes.data
        )
        return lengths

    def ranges(
        self, query: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `memorization.suffix_array.SuffixArray.ranges`."""
        first, last = (np.empty(len(starts), np.int64) for _ in range(2))
        starts, lengths = (np.ascontiguousarray(array, np.int64) for array in (starts, lengths))
        library().talipot_ranges(
            *(self._address, query.ctypes.data, len(starts), starts.ctypes.data),
            *(lengths.ctypes.data, first.ctypes.data, last.ctypes.data),
        )
        return first, last
