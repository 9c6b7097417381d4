"""Which of a document's k-grams are kept: winnowing (Schleimer, Wilkerson and Aiken 2003)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.errors import TrainingIndexError
from memorization.rolling_hash import UInt64, kgram_hashes

_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Winnowing:
    """How text is thinned out to fingerprints.

    Any run of at least `guarantee_tokens` tokens that two texts share has a fingerprint that both
    share. About 2 / (window + 1) of all positions are kept.

    Attributes:
        k: Tokens that a fingerprint covers.
        window: Consecutive k-grams of which at least one is kept; at most `k`, so that the kept
            k-grams of a run leave no token between them uncovered.
        hash_bits: Bits of each hash that are kept.
    """

    k: int = 24
    window: int = 24
    hash_bits: int = 40

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.window <= self.k <= 1024:
            raise TrainingIndexError(
                f"window={self.window} must be from 1 to k={self.k}, and k at most 1024"
            )
        if self.hash_bits not in (32, 40, 48, 56, 64):
            raise TrainingIndexError(f"hash_bits={self.hash_bits} must be 32, 40, 48, 56 or 64")

    @property
    def guarantee_tokens(self) -> int:
        """The shortest shared run that is always found."""
        return self.k + self.window - 1

    @property
    def hash_mask(self) -> int:
        """The bits of a 64-bit hash that are kept: the low ones, as the high ones decide which."""
        return (1 << self.hash_bits) - 1


def winnow(tokens: NDArray[Any], winnowing: Winnowing) -> tuple[NDArray[np.int64], UInt64]:
    """Fingerprints of one document.

    Returns:
        First token of each kept k-gram, ascending, int64[kept], and its hash, uint64[kept],
        reduced to `hash_bits`. A document with fewer k-grams than a window keeps one.
    """
    hashes = kgram_hashes(tokens, winnowing.k)
    if not len(hashes):
        return np.empty(0, np.int64), hashes
    window = min(winnowing.window, len(hashes))
    kept = [
        _chosen(hashes[begin : begin + _CHUNK + window - 1], window) + begin
        for begin in range(0, len(hashes) - window + 1, _CHUNK)
    ]
    positions = np.unique(np.concatenate(kept))
    return positions, hashes[positions] & np.uint64(winnowing.hash_mask)


def _chosen(hashes: UInt64, window: int) -> NDArray[np.int64]:
    """The smallest of each window, the last of equals, which keeps repetitive text thin."""
    windows = np.lib.stride_tricks.sliding_window_view(hashes, window)
    offsets = window - 1 - windows[:, ::-1].argmin(axis=1)
    return np.unique(offsets + np.arange(len(windows), dtype=np.int64))
