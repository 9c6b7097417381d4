"""Passages that stand in a corpus again, by its suffix arrays (Lee et al. 2021, ExactSubstr).

Of a run of at least `min_tokens` tokens that occurs more than once, the first occurrence stays and
the later ones are cut. An occurrence that overlaps the first does not count: of a text that repeats
itself without end, a run stays whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorization.layout import MANIFEST, IndexParameters, read_json
from memorization.shard import Shard
from memorization.shard_writer import STARTS, SUFFIXES, TOKENS, ShardCounts
from memorization.suffix_array import PADDING, SEPARATOR, Int64, Stored, stored_dtype

_WORD_BYTES = 8
_BLOCK_SUFFIXES = 1 << 22
_BLOCK_TOKENS = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeat:
    """A run of tokens that stands earlier in the corpus as well.

    Attributes:
        document: Number of the document that it is cut from.
        start: Its first token there.
        end: One past its last; several repeated passages may lie end to end in it.
        first_document: Where its first `min_tokens` tokens stand first.
        first_start: First of those tokens there.
    """

    document: int
    start: int
    end: int
    first_document: int
    first_start: int


class _Shard:
    """A shard's tokens and suffix array, both memory maps."""

    def __init__(self, generation: Path, number: int, counts: ShardCounts, first: int) -> None:
        manifest = read_json(generation / MANIFEST)
        parameters = IndexParameters.from_dict(manifest["parameters"])
        folder = generation / f"shard-{number:05}"
        vocab_size = manifest["vocab_size"]
        array = Shard(folder, parameters, vocab_size, counts).suffix_array
        assert array is not None  # the index is built with exact matches
        self.search = array
        self.first = first
        self.stored: Stored = np.memmap(folder / TOKENS, stored_dtype(vocab_size), "r")
        self.suffixes = np.memmap(folder / SUFFIXES, np.int32, "r")
        self.starts: Int64 = np.fromfile(folder / STARTS, np.int64)
        self.ends: Int64 = np.append(self.starts[1:], len(self.stored) - PADDING) - 1

    def place(self, position: int) -> tuple[int, int]:
        """(document of the corpus, token in it) of a position."""
        document = int(np.searchsorted(self.starts, position, "right")) - 1
        return self.first + document, position - int(self.starts[document])


def find_repeats(
    generation: Path, min_tokens: int, *, on_phase: Callable[[str], None] = lambda _: None
) -> list[Repeat]:
    """Every repeated run of an index, in corpus order.

    Args:
        generation: Folder of the index, of `build_index` with exact matches.
        min_tokens: Shortest run of interest, at least 8.
        on_phase: Told what is being done, for people.
    """
    counts = [ShardCounts(**shard) for shard in read_json(generation / MANIFEST)["shards"]]
    firsts = np.cumsum([0, *(one.documents for one in counts)]).tolist()
    found: list[Repeat] = []
    for number, count in enumerate(counts):
        on_phase(f"looking for repeated passages in shard {number}")
        shard = _Shard(generation, number, count, firsts[number])
        positions, origins = repeated_positions(shard.stored, shard.suffixes, min_tokens)
        origin = np.full(len(shard.stored), -1, np.int64)
        origin[positions] = origins
        earlier = [
            _Shard(generation, other, counts[other], firsts[other]) for other in range(number)
        ]
        before = np.full(len(shard.stored), -1, np.int32)
        for other, one in reversed(list(enumerate(earlier))):
            before[_known_positions(shard, one, min_tokens)] = other
        found += _repeats(shard, origin, before, earlier, min_tokens)
    return found


def repeated_positions(
    stored: Stored, suffixes: NDArray[np.int32], min_tokens: int
) -> tuple[Int64, Int64]:
    """Positions whose next `min_tokens` tokens stand earlier as well, and where they stand first.

    Args:
        stored: Tokens of a shard, uint[tokens].
        suffixes: Their order, int32[tokens].
        min_tokens: Length of the runs that are compared.

    Returns:
        Positions in no order, int64[positions], and for each the first, int64[positions].
    """
    separators = np.flatnonzero(stored == SEPARATOR)
    alike = np.zeros(len(suffixes), np.bool_)  # with the suffix before it in the order
    for begin in range(1, len(suffixes), _BLOCK_SUFFIXES):
        block = np.asarray(suffixes[begin - 1 : begin + _BLOCK_SUFFIXES], np.int64)
        alike[begin : begin + len(block) - 1] = _same_runs(stored, separators, block, min_tokens)
    # A group is a suffix that is unlike the one before it, and all that follow and are alike.
    is_member = alike.copy()
    is_member[:-1] |= alike[1:]
    members = np.flatnonzero(is_member)
    if not members.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    heads = np.flatnonzero(~alike[members])
    positions = np.asarray(suffixes, np.int64)[members]
    firsts = np.repeat(
        np.minimum.reduceat(positions, heads), np.diff(np.append(heads, len(members)))
    )
    is_later = positions >= firsts + min_tokens
    return positions[is_later], firsts[is_later]


def _same_runs(
    stored: Stored, separators: Int64, suffixes: Int64, length: int
) -> NDArray[np.bool_]:
    """Whether each suffix begins with the same run inside a document as the one before it."""
    width = stored.dtype.itemsize
    step = _WORD_BYTES // width
    words = np.ndarray((len(stored) - step + 1,), np.uint64, buffer=stored, strides=(width,))
    # A suffix nearer to the end than this consists of padding somewhere.
    inside = suffixes + length <= len(stored)
    open_ = np.flatnonzero(inside[1:] & inside[:-1])
    for offset in (*range(0, length - step, step), length - step):
        left, right = suffixes[open_] + offset, suffixes[open_ + 1] + offset
        open_ = open_[words[left] == words[right]]
    begins = suffixes[open_ + 1]
    ends = separators[np.searchsorted(separators, begins)]
    same = np.zeros(len(suffixes) - 1, np.bool_)
    same[open_[ends - begins >= length]] = True
    return same


def _known_positions(shard: _Shard, earlier: _Shard, min_tokens: int) -> Int64:
    """Positions of a shard whose next `min_tokens` tokens stand in an earlier one."""
    found: list[Int64] = [np.empty(0, np.int64)]
    for start, end in zip(shard.starts.tolist(), shard.ends.tolist(), strict=True):
        for begin in range(start, end, _BLOCK_TOKENS):
            block = shard.stored[begin : min(end, begin + _BLOCK_TOKENS + min_tokens - 1)]
            lengths = earlier.search.match_lengths(block)
            found.append(begin + np.flatnonzero(lengths >= min_tokens))
    return np.concatenate(found)


def _repeats(
    shard: _Shard, origin: Int64, before: NDArray[np.int32], earlier: list[_Shard], length: int
) -> Iterator[Repeat]:
    """Runs of covered tokens, and where each begins first."""
    positions = np.flatnonzero((origin >= 0) | (before >= 0))
    # A run ends where the next repeated position lies past the tokens covered so far; no covered
    # run reaches over a document's end, and a separator lies between two documents.
    borders = np.flatnonzero(np.diff(positions) > length) + 1
    for run in np.split(positions, borders):
        if not run.size:
            continue
        start, end = int(run[0]), int(run[-1]) + length
        document, token = shard.place(start)
        if before[start] >= 0:
            other = earlier[int(before[start])]
            first_document, first_start = other.place(_first_place(other, shard, start, length))
        else:
            first_document, first_start = shard.place(int(origin[start]))
        yield Repeat(
            document=document,
            start=token,
            end=token + end - start,
            first_document=first_document,
            first_start=first_start,
        )


def _first_place(earlier: _Shard, shard: _Shard, start: int, length: int) -> int:
    query = shard.stored[start : start + length]
    run = np.zeros(1, np.int64), np.full(1, length, np.int64)
    low, high = earlier.search.ranges(query, *run)
    return int(earlier.search.positions(int(low[0]), int(high[0]))[0])
