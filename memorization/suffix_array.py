"""Suffix array over token ids, and a search that looks for every position of a query at once.

Token ids are stored as unsigned big-endian integers of 2 or 4 bytes. In that form the order of the
tokens is the order of their bytes, so libdivsufsort, which sorts bytes, sorts them, and a gathered
64-bit word compares four (or two) tokens at a time.

Stored values are id + 2: 1 closes a document, and 0 and the type's largest value never occur, so a
pattern that ends in 0 sorts before, and one that ends in the largest after, all that it begins.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from memorization import kernels
from memorization.errors import TrainingIndexError

Stored: TypeAlias = NDArray[Any]
"""Stored token values, big-endian uint16 or uint32."""

Int64: TypeAlias = NDArray[np.int64]

LOW = 0
SEPARATOR = 1
ID_SHIFT = 2
PADDING = 8
"""Separators behind the last document, so that a word read at any suffix stays inside."""

_KEY_EVERY = 16
_WORD_BYTES = 8


def stored_dtype(vocab_size: int) -> np.dtype[Any]:
    """The integer type that holds the ids of a vocabulary, the shift and the largest value."""
    return np.dtype(">u2" if vocab_size + ID_SHIFT <= np.iinfo(np.uint16).max else ">u4")


def require_ids(tokens: Any, vocab_size: int) -> Int64:
    """Token ids as int64[tokens].

    Raises:
        TrainingIndexError: An id lies outside the vocabulary.
    """
    ids = np.asarray(tokens, np.int64)
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        wrong = int(ids[(ids < 0) | (ids >= vocab_size)][0])
        raise TrainingIndexError(
            f"token id {wrong} is outside the vocabulary of {vocab_size} tokens: "
            f"expected 0 to {vocab_size - 1}"
        )
    return ids


def store_tokens(tokens: Any, vocab_size: int) -> Stored:
    """Token ids as they are stored.

    Args:
        tokens: Integers [tokens].
        vocab_size: Number of ids.

    Raises:
        TrainingIndexError: An id lies outside the vocabulary.
    """
    return (require_ids(tokens, vocab_size) + ID_SHIFT).astype(stored_dtype(vocab_size))


def build_suffix_array(stored: Stored) -> NDArray[np.int32]:
    """The suffixes of `stored` in ascending order of their tokens, int32[tokens].

    Raises:
        TrainingIndexError: There are more bytes than libdivsufsort's 32-bit form takes.
    """
    from pydivsufsort import divsufsort

    width = stored.dtype.itemsize
    if stored.nbytes > np.iinfo(np.int32).max:
        raise TrainingIndexError(
            f"{stored.nbytes} bytes of tokens exceed the {np.iinfo(np.int32).max} of one shard"
        )
    by_byte = divsufsort(_big_endian(stored).view(np.uint8))
    # Suffixes that begin inside a token are sorted too, and are of no use. A width is 2 or 4.
    aligned = by_byte[by_byte & np.int32(width - 1) == 0]
    suffixes: NDArray[np.int32] = aligned >> np.int32(width // 2)
    return suffixes


def build_keys(stored: Stored, suffixes: NDArray[np.int32]) -> NDArray[np.uint64]:
    """The first word of every 16th suffix, uint64[ceil(tokens / 16)]: where a search begins."""
    words = _words(stored)
    return words[np.minimum(suffixes[::_KEY_EVERY], len(words) - 1)].astype(np.uint64)


def _big_endian(stored: Stored) -> Stored:
    """The same values, big-endian: numpy's own operations turn arrays to the machine's order."""
    return np.ascontiguousarray(stored, stored.dtype.newbyteorder(">"))


def _words(stored: Stored) -> NDArray[Any]:
    """The 8 bytes that begin at each token, big-endian uint64[tokens - 8 bytes of tokens + 1]."""
    stored = _big_endian(stored)
    width = stored.dtype.itemsize
    count = len(stored) - _WORD_BYTES // width + 1
    return np.ndarray((count,), ">u8", buffer=stored, strides=(width,))


class SuffixArray:
    """Searches one shard.

    All its arrays may be memory maps. `stored` ends in `PADDING` separators that no suffix of
    interest begins in.
    """

    def __init__(
        self, stored: Stored, suffixes: NDArray[np.int32], keys: NDArray[np.uint64]
    ) -> None:
        """Take the arrays of `build_suffix_array` and `build_keys`."""
        stored = _big_endian(stored)
        self._kernel = (
            kernels.SuffixSearch(stored, suffixes, keys, _KEY_EVERY)
            if kernels.is_available()
            else None
        )
        self._words = _words(stored)
        self._last_word = len(self._words) - 1
        self._suffixes = suffixes
        self._keys = keys
        self._width = stored.dtype.itemsize
        self._per_word = _WORD_BYTES // self._width
        self._dtype = stored.dtype

    def match_lengths(self, query: Stored) -> Int64:
        """Tokens that the longest match of each suffix of `query` has, int64[query]."""
        high = np.full(PADDING, np.iinfo(self._dtype).max, self._dtype)
        patterns = _big_endian(np.concatenate([query, high]))
        if self._kernel is not None:
            return self._kernel.match_lengths(patterns, len(query))
        starts = np.arange(len(query), dtype=np.int64)
        words = _words(patterns).astype(np.uint64)
        # The suffix that shares most with a pattern is a neighbour of its place in the order.
        above = self._lower_bound(words, starts)
        last = len(self._suffixes) - 1
        before = self._common(words, starts, np.maximum(above - 1, 0))
        after = self._common(words, starts, np.minimum(above, last))
        lengths: Int64 = np.maximum(before, after).astype(np.int64)
        return lengths

    def ranges(self, query: Stored, starts: Int64, lengths: Int64) -> tuple[Int64, Int64]:
        """Places `[first, last)` in the suffix array of those that begin with a run of `query`.

        Args:
            query: Stored tokens [query].
            starts: First token of each run, int64[runs].
            lengths: Tokens of each run, int64[runs].
        """
        if not len(starts):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if self._kernel is not None:
            return self._kernel.ranges(_big_endian(query), starts, lengths)
        ends: list[Int64] = []
        for closing in (LOW, int(np.iinfo(self._dtype).max)):
            closed = np.full(PADDING, closing, self._dtype)
            pieces = [
                np.concatenate([query[start : start + length], closed])
                for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
            ]
            begins = np.cumsum([0, *(len(piece) for piece in pieces)])[:-1].astype(np.int64)
            words = _words(np.concatenate(pieces)).astype(np.uint64)
            ends.append(self._lower_bound(words, begins))
        return ends[0], ends[1]

    def positions(self, first: int, last: int) -> Int64:
        """Token positions of the suffixes at places `[first, last)`, in corpus order."""
        return np.sort(np.asarray(self._suffixes[first:last], np.int64))

    def _lower_bound(self, words: NDArray[np.uint64], starts: Int64) -> Int64:
        """Place of the first suffix that is not below each pattern, int64[patterns].

        A binary search for all patterns in lockstep. Each keeps how much it shares with the
        suffixes at both ends of its range (Manber and Myers 1993): what both share, all between
        them do, and it is not compared again.
        """
        key = words[starts]
        low = (np.searchsorted(self._keys, key, "left") - 1) * _KEY_EVERY
        high = np.searchsorted(self._keys, key, "right") * _KEY_EVERY
        low = np.maximum(low, -1).astype(np.int64)
        high = np.minimum(high, len(self._suffixes)).astype(np.int64)
        low_shared = np.zeros(len(starts), np.int64)
        high_shared = np.zeros(len(starts), np.int64)
        active = np.flatnonzero(high - low > 1)
        while active.size:
            middle = (low[active] + high[active]) >> 1
            shared = np.minimum(low_shared[active], high_shared[active])
            shared, is_below = self._compare(words, starts[active], middle, shared)
            below, above = active[is_below], active[~is_below]
            low[below], low_shared[below] = middle[is_below], shared[is_below]
            high[above], high_shared[above] = middle[~is_below], shared[~is_below]
            active = active[high[active] - low[active] > 1]
        return high

    def _common(self, words: NDArray[np.uint64], starts: Int64, places: Int64) -> Int64:
        return self._compare(words, starts, places, np.zeros(len(starts), np.int64))[0]

    def _compare(
        self, words: NDArray[np.uint64], starts: Int64, places: Int64, shared: Int64
    ) -> tuple[Int64, NDArray[np.bool_]]:
        """Tokens that patterns share with suffixes, and which of the suffixes are below."""
        suffix = self._suffixes[places].astype(np.int64)
        shared = shared.copy()
        is_below = np.zeros(len(starts), np.bool_)
        open_ = np.arange(len(starts))
        while open_.size:
            at = suffix[open_] + shared[open_]
            # Past the last word a suffix consists of padding, which no pattern has.
            theirs = self._words[np.minimum(at, self._last_word)].astype(np.uint64)
            ours = words[starts[open_] + shared[open_]]
            difference = ours ^ theirs
            is_equal = difference == 0
            shared[open_] += self._leading_tokens(difference)
            is_below[open_] = theirs < ours
            open_ = open_[is_equal]
        return shared, is_below

    def _leading_tokens(self, difference: NDArray[np.uint64]) -> Int64:
        """Tokens before the first that differs, at most a word's."""
        bits = 8 * self._width
        count = np.zeros(len(difference), np.int64)
        for token in range(1, self._per_word):
            count += difference < np.uint64(1 << (64 - bits * token))
        count += difference == 0
        return count
