"""MinHash signatures of windows, by rensa or as datasketch computes them.

Both give `num_perm` 32-bit values of which two windows share about as large a part as of their
shingles. Only datasketch's own can be mixed with an index that datasketch made.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memorization.lsh import Banding
from memorization.rolling_hash import UInt64
from memorization.shingles import Windows, WordHashes, shingle_hashes
from memorization.suffix_array import Int64

Signatures: TypeAlias = NDArray[np.uint32]
SignatureKind: TypeAlias = Literal["rensa", "datasketch"]

SEED = 1
"""Seed of the permutations, datasketch's default."""

_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)


class Signer(Protocol):
    """Computes the signatures of a text's windows."""

    def sign(self, words: Sequence[str], starts: Int64) -> Signatures:
        """Signatures of the windows that begin at `starts`, uint32[windows, num_perm]."""
        ...


def make_signer(kind: SignatureKind, windows: Windows, num_perm: int) -> Signer:
    """The signer of a kind."""
    signer = RensaSigner if kind == "rensa" else DatasketchSigner
    return signer(windows, num_perm)


class RensaSigner:
    """Signatures of rensa's R-MinHash over our own shingle hashes."""

    def __init__(self, windows: Windows, num_perm: int) -> None:
        """Prepare for windows of this size."""
        self._windows = windows
        self._num_perm = num_perm
        self._words = WordHashes()

    def sign(self, words: Sequence[str], starts: Int64) -> Signatures:
        """See `Signer.sign`."""
        hashes = shingle_hashes(words, self._windows.shingle_words, self._words)
        return sign_hashes(
            hashes[starts[:, None] + np.arange(self._windows.shingles_of(len(words)))],
            self._num_perm,
        )


def sign_hashes(hashes: UInt64, num_perm: int) -> Signatures:
    """R-MinHash signatures of equal sets, uint64[sets, members] → uint32[sets, num_perm]."""
    from rensa import RMinHash

    sets, members = hashes.shape
    if not sets:
        return np.empty((0, num_perm), np.uint32)
    offsets = np.arange(sets + 1, dtype=np.uint64) * np.uint64(members)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(hashes).reshape(-1), offsets, num_perm, SEED
    )
    values = itertools.chain.from_iterable(matrix.to_rows())
    return np.fromiter(values, np.uint32, sets * num_perm).reshape(sets, num_perm)


class DatasketchSigner:
    """Signatures equal to `datasketch.MinHash(num_perm, seed=1)` of the shingles' UTF-8 bytes.

    A shingle is its words joined by single spaces; datasketch's default hash is SHA-1's first 32
    bits, and its default scheme "affine32".
    """

    def __init__(self, windows: Windows, num_perm: int) -> None:
        """Take the permutations from datasketch."""
        from datasketch import MinHash

        self._windows = windows
        self._multiply, self._add = MinHash(num_perm=num_perm, seed=SEED).permutations

    def sign(self, words: Sequence[str], starts: Int64) -> Signatures:
        """See `Signer.sign`."""
        from datasketch.hashfunc import sha1_hash32

        n = self._windows.shingle_words
        shingles = [" ".join(words[at : at + n]).encode() for at in range(len(words) - n + 1)]
        hashes = _mix_32(np.array([sha1_hash32(shingle) for shingle in shingles], np.uint32))
        members = np.arange(self._windows.shingles_of(len(words)))
        signatures = np.empty((len(starts), len(self._multiply)), np.uint32)
        for row, start in enumerate(starts.tolist()):
            values = hashes[start + members, None] * self._multiply + self._add
            signatures[row] = values.min(axis=0)
        return signatures


def _mix_32(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Murmur3's 32-bit finalizer, which datasketch applies before its permutations."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def band_keys(signatures: Signatures, banding: Banding) -> NDArray[np.uint32]:
    """A 32-bit hash of each band's values, uint32[windows, bands]."""
    used = signatures[:, : banding.bands * banding.rows].astype(np.uint64)
    bands = used.reshape(len(signatures), banding.bands, banding.rows)
    keys = np.zeros((len(signatures), banding.bands), np.uint64)
    for row in range(banding.rows):
        keys = (keys + bands[:, :, row] + np.uint64(1)) * _HASH_BASE
        keys ^= keys >> np.uint64(29)
    return (keys >> np.uint64(32)).astype(np.uint32)


def similarities(signatures: Signatures, query: Signatures) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of each signature with one, float64[windows]."""
    shared: NDArray[np.float64] = (signatures == query).mean(axis=1, dtype=np.float64)
    return shared
