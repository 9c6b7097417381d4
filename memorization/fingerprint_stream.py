"""Follows one growing text through a text-free index, a token at a time.

What it costs a token is a rolling hash and a look at a bitmap; the index is searched only where
the bitmap says that a fingerprint may match.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from memorization.errors import TrainingIndexError
from memorization.fingerprint_index import FingerprintIndex
from memorization.rolling_hash import RollingHash

_BITS = 25


class FingerprintFilter:
    """A bitmap over fingerprints: no means no. One serves all streams of an index."""

    def __init__(self, index: FingerprintIndex) -> None:
        """Mark every fingerprint of the index."""
        self.index = index
        bits = np.zeros(1 << _BITS, np.bool_)
        bits[index.sorted_hashes & np.uint64((1 << _BITS) - 1)] = True
        self._bytes = np.packbits(bits, bitorder="little").tobytes()

    def __contains__(self, kgram_hash: int) -> bool:
        """Whether a 64-bit k-gram hash may be a fingerprint."""
        bit = kgram_hash & ((1 << _BITS) - 1)
        return bool(self._bytes[bit >> 3] >> (bit & 7) & 1)


@dataclasses.dataclass
class _Chain:
    """A run that goes on: it begins no earlier than `earliest`, and has no token at `deadline`."""

    place: int
    start: int
    earliest: int
    covered: int = 0
    deadline: int = 0


class FingerprintStream:
    """The runs of training text that reach the end of a growing text.

    `possible` is never less than the true length of a run that ends at the last token, once that
    length is at least `guarantee_tokens`: stop before it reaches a limit, and no run of the limit's
    length is ever complete.
    """

    def __init__(self, matcher: FingerprintFilter) -> None:
        """Begin an empty text."""
        self._matcher = matcher
        self._index = matcher.index
        self._k = self._index.winnowing.k
        self._rolling = RollingHash(self._k, self._index.vocab_size)
        self._chains: dict[int, _Chain] = {}
        self._count = 0

    def push(self, token: int) -> None:
        """Add a token.

        Raises:
            TrainingIndexError: It lies outside the vocabulary.
        """
        if not 0 <= token < self._index.vocab_size:
            raise TrainingIndexError(
                f"token id {token} is outside the vocabulary of {self._index.vocab_size} tokens"
            )
        kgram_hash = self._rolling.push(token)
        self._count += 1
        if kgram_hash is not None and kgram_hash in self._matcher:
            self._extend(kgram_hash)
        if self._chains:
            ended = [shift for shift, c in self._chains.items() if c.deadline < self._count]
            for shift in ended:
                del self._chains[shift]

    @property
    def possible(self) -> int:
        """Most tokens that a found run can have which reaches the last token; 0 without one."""
        return max((self._count - chain.earliest for chain in self._chains.values()), default=0)

    @property
    def certain(self) -> int:
        """Tokens that fingerprints cover of the longest such run."""
        return max((chain.covered for chain in self._chains.values()), default=0)

    def _extend(self, kgram_hash: int) -> None:
        begin = self._count - self._k
        for place in self._index.places(kgram_hash).tolist():
            shift = self._index.position(place) - begin
            chain = self._chains.get(shift)
            earliest, latest = self._index.bounds(place)
            if chain is None or not self._index.are_neighbours(chain.place, place):
                chain = _Chain(place, begin, max(0, earliest - shift))
                self._chains[shift] = chain
            chain.place = place
            chain.covered = self._count - chain.start
            chain.deadline = latest - shift
