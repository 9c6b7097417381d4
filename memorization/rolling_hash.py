"""Hashes of every run of k tokens: a polynomial modulo 2**64, then a mixing step.

One definition in two forms that agree: over whole arrays, and token by token for streams. The
polynomial rolls (Karp and Rabin 1987); Murmur3's finalizer spreads it, so that any of the 64 bits
can be used.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

UInt64: TypeAlias = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_BASE = 0x9E3779B97F4A7C15
_MIX_1 = 0xFF51AFD7ED558CCD
_MIX_2 = 0xC4CEB9FE1A85EC53
_SHIFT = np.uint64(33)


def mix(values: UInt64) -> UInt64:
    """Murmur3's 64-bit finalizer, a bijection."""
    values = (values ^ (values >> _SHIFT)) * np.uint64(_MIX_1)
    values = (values ^ (values >> _SHIFT)) * np.uint64(_MIX_2)
    return values ^ (values >> _SHIFT)


def token_values(ids: NDArray[Any]) -> UInt64:
    """A random-looking 64-bit value for each token id."""
    return mix((ids.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE))


def kgram_hashes(tokens: NDArray[Any], k: int) -> UInt64:
    """Hash of each run of `k` tokens, uint64[max(0, tokens - k + 1)]."""
    count = max(0, len(tokens) - k + 1)
    values = token_values(tokens)
    hashes = np.zeros(count, np.uint64)
    for offset in range(k):
        hashes *= np.uint64(_BASE)
        hashes += values[offset : offset + count]
    return mix(hashes)


class RollingHash:
    """The same hashes, one token at a time."""

    def __init__(self, k: int, vocab_size: int) -> None:
        """Prepare for ids in ``[0, vocab_size)``."""
        self._k = k
        self._values: list[int] = token_values(np.arange(vocab_size, dtype=np.int64)).tolist()
        self._leaving = pow(_BASE, k - 1, 1 << 64)
        self._window = [0] * k
        self._count = 0
        self._hash = 0

    def push(self, token: int) -> int | None:
        """Add a token; the hash of the last `k`, or None while there are fewer."""
        value = self._values[token]
        slot = self._count % self._k
        rolled = (self._hash - self._window[slot] * self._leaving) * _BASE + value
        self._hash = rolled & _MASK
        self._window[slot] = value
        self._count += 1
        return _mix_int(self._hash) if self._count >= self._k else None


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 33)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 33)) * _MIX_2) & _MASK
    return value ^ (value >> 33)
