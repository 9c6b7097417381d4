"""MinHash signatures of windows: Talipot's, or datasketch's own.

Both are `num_perm` 32-bit values of which two windows share about as large a part as of their
shingles (Broder 1997), and both are the least values of a shingle's 32-bit hash under affine
permutations. They differ in the hash and in the permutations' constants. Only datasketch's can be
mixed with an index that datasketch made; its SHA-1 of each shingle takes most of its time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memorization import kernels
from memorization.lsh import Banding
from memorization.rolling_hash import UInt64, mix
from memorization.shingles import Windows, shingle_hashes, split_words
from memorization.suffix_array import Int64

UInt32: TypeAlias = NDArray[np.uint32]
Signatures: TypeAlias = NDArray[np.uint32]
SignatureKind: TypeAlias = Literal["talipot", "datasketch"]

SEED = 1
"""Seed of datasketch's permutations, its default."""

_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)


class Signed(NamedTuple):
    """A text's windows.

    Attributes:
        words: Words of the text.
        starts: First word of each window, int64[windows]; none for less than a shingle.
        signatures: Their signatures, uint32[windows, num_perm].
    """

    words: int
    starts: Int64
    signatures: Signatures


@dataclasses.dataclass(frozen=True)
class Permutations:
    """The permutations x -> multiply * x + add of the numbers modulo 2**32.

    Attributes:
        multiply: Odd factors, uint32[num_perm].
        add: uint32[num_perm].
    """

    multiply: UInt32
    add: UInt32


@dataclasses.dataclass(frozen=True)
class Signer:
    """Computes the signatures of a text's windows.

    Attributes:
        windows: How a text is cut.
        permutations: Of the shingles' hashes.
        hash_shingles: Gives the number of a text's words, and a hash of each run of so many.
    """

    windows: Windows
    permutations: Permutations
    hash_shingles: Callable[[str, int], tuple[int, UInt32]]

    def sign(self, text: str) -> Signed:
        """Cut a text into windows and sign each."""
        words, hashes = self.hash_shingles(text, self.windows.shingle_words)
        starts = self.windows.starts(words)
        members = self.windows.shingles_of(words) if len(starts) else 0
        return Signed(words, starts, minhash(hashes, starts, members, self.permutations))


def make_signer(kind: SignatureKind, windows: Windows, num_perm: int) -> Signer:
    """The signer of a kind."""
    if kind == "datasketch":
        return Signer(windows, _datasketch_permutations(num_perm), _datasketch_hashes)
    return Signer(windows, _talipot_permutations(num_perm), _talipot_hashes)


def minhash(hashes: UInt32, starts: Int64, members: int, permutations: Permutations) -> Signatures:
    """Signatures of windows, uint32[windows, num_perm].

    Args:
        hashes: Hash of each shingle of a text, uint32[shingles].
        starts: First shingle of each window, int64[windows].
        members: Shingles of each window.
        permutations: Under which the least value is taken.
    """
    multiply, add = permutations.multiply, permutations.add
    if kernels.is_available():
        return kernels.minhash(hashes, starts, members, multiply, add)
    signatures = np.empty((len(starts), len(multiply)), np.uint32)
    for row, start in enumerate(starts.tolist()):
        values = hashes[start : start + members, None] * multiply + add
        signatures[row] = values.min(axis=0)
    return signatures


def sign_set(hashes: UInt64, num_perm: int) -> Signatures:
    """Talipot's signature of one set of shingles, uint32[num_perm].

    Args:
        hashes: Of `memorization.shingles.shingle_hashes`, uint64[shingles]; at least one.
        num_perm: Values of the signature.
    """
    start = np.zeros(1, np.int64)
    permutations = _talipot_permutations(num_perm)
    return minhash(_folded(hashes), start, len(hashes), permutations).reshape(num_perm)


def _talipot_permutations(num_perm: int) -> Permutations:
    """Constants from a counter; those for more permutations begin with those for fewer."""
    values = mix(np.arange(1, 2 * num_perm + 1, dtype=np.uint64) * _HASH_BASE) >> np.uint64(32)
    multiply, add = values.astype(np.uint32).reshape(num_perm, 2).T
    return Permutations(np.ascontiguousarray(multiply | np.uint32(1)), np.ascontiguousarray(add))


def _talipot_hashes(text: str, shingle_words: int) -> tuple[int, UInt32]:
    words, hashes = shingle_hashes(text, shingle_words)
    return words, _folded(hashes)


def _folded(hashes: UInt64) -> UInt32:
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _datasketch_permutations(num_perm: int) -> Permutations:
    """Those of `datasketch.MinHash(num_perm, seed=1)`, in its default scheme "affine32"."""
    from datasketch import MinHash

    return Permutations(*MinHash(num_perm=num_perm, seed=SEED).permutations)


def _datasketch_hashes(text: str, shingle_words: int) -> tuple[int, UInt32]:
    """As datasketch hashes a shingle's words, joined by single spaces, in UTF-8.

    Its default hash is SHA-1's first 32 bits, and before its permutations they pass Murmur3's
    32-bit finalizer.
    """
    from datasketch.hashfunc import sha1_hash32

    words = split_words(text)
    count = max(0, len(words) - shingle_words + 1)

    def shingles() -> Iterator[bytes]:
        for at in range(count):
            yield " ".join(words[at : at + shingle_words]).encode("utf-8", "surrogatepass")

    values = np.fromiter(map(sha1_hash32, shingles()), np.uint32, count)
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return len(words), values ^ (values >> np.uint32(16))


def band_keys(signatures: Signatures, banding: Banding) -> UInt32:
    """A 32-bit hash of each band's values, uint32[windows, bands]."""
    used = signatures[:, : banding.bands * banding.rows]
    return hash_rows(used.reshape(len(signatures), banding.bands, banding.rows))


def hash_rows(values: UInt32) -> UInt32:
    """A 32-bit hash of the values along the last axis, uint32[..., rows] → uint32[...]."""
    keys = np.zeros(values.shape[:-1], np.uint64)
    for row in range(values.shape[-1]):
        keys = (keys + values[..., row] + np.uint64(1)) * _HASH_BASE
        keys ^= keys >> np.uint64(29)
    return (keys >> np.uint64(32)).astype(np.uint32)


def similarities(signatures: Signatures, query: Signatures) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of each signature with one, float64[windows]."""
    shared: NDArray[np.float64] = (signatures == query).mean(axis=1, dtype=np.float64)
    return shared
