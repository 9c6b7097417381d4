"""The shapes that are compiled, and which of them a piece of work runs in.

Work is padded up to the next compiled shape. What shape a request's prompt is cut into depends on
that request alone, so that its numbers do not depend on its neighbours.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

from serving.config import EngineConfig

# XLA treats a product with a single row as a matrix-vector product, which rounds differently from
# every other number of rows; two rows cost next to nothing more.
_SMALLEST_BATCH = 2
# Drafts are rows of decode steps. Up to so many rows a CPU's step costs little more than with one.
_SMALLEST_DRAFT_ROWS, _LARGEST_DRAFT_ROWS = 8, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buckets:
    """Every compiled size, each tuple rising.

    Attributes:
        chunks: Lengths of a prompt chunk; longer prompts are cut into chunks of the last.
        chunk_keys: Cache positions that a prompt chunk's program reads.
        batches: Rows of a decode step: a request has one, and one for each token of its draft.
        decode_keys: Cache positions that a decode step's program reads.
        cache_tokens: Positions in a slot's page table: a multiple of the largest chunk, so that a
            padded chunk never passes the end, and at least the context.
        page_size: Positions of a page; divides every other size but `batches`.
    """

    chunks: tuple[int, ...]
    chunk_keys: tuple[int, ...]
    batches: tuple[int, ...]
    decode_keys: tuple[int, ...]
    cache_tokens: int
    page_size: int

    @classmethod
    def of(cls, config: EngineConfig, context_tokens: int, row_multiple: int = 1) -> Buckets:
        """The sizes for a context of `context_tokens`; batches are multiples of `row_multiple`."""
        limit = bisect.bisect_left(config.prefill_buckets, context_tokens) + 1
        chunks = config.prefill_buckets[:limit]
        cache_tokens = -(-context_tokens // chunks[-1]) * chunks[-1]
        keys = doublings(config.smallest_key_bucket, cache_tokens)
        return cls(
            chunks=chunks,
            # Reading more keys than needed costs a prompt chunk little: half the sizes will do.
            chunk_keys=keys[::-1][::2][::-1],
            batches=_batches(config, row_multiple),
            decode_keys=keys,
            cache_tokens=cache_tokens,
            page_size=config.page_size,
        )

    @property
    def largest_chunk(self) -> int:
        """The chunk in which long prompts are taken in."""
        return self.chunks[-1]


def _batches(config: EngineConfig, row_multiple: int) -> tuple[int, ...]:
    if row_multiple > 1:
        # Chips have rows of their own, and no drafts.
        rows = -(-config.max_slots // row_multiple) * row_multiple
        return doublings(row_multiple, rows)
    sizes = doublings(_SMALLEST_BATCH, max(_SMALLEST_BATCH, config.max_slots))
    if config.speculate == "off":
        return sizes
    largest = max(_SMALLEST_DRAFT_ROWS, min(2 * config.max_slots, _LARGEST_DRAFT_ROWS))
    return sizes if largest <= sizes[-1] else (*sizes, *doublings(2 * sizes[-1], largest))


def doublings(first: int, last: int) -> tuple[int, ...]:
    """`first`, its doublings below `last`, and `last`; only `last` if it is no larger."""
    sizes = []
    size = first
    while size < last:
        sizes.append(size)
        size *= 2
    return (*sizes, last)


def round_up(size: int, sizes: Sequence[int]) -> int:
    """The smallest of the rising `sizes` that is at least `size`.

    Raises:
        ValueError: None is.
    """
    index = bisect.bisect_left(sizes, size)
    if index == len(sizes):
        raise ValueError(f"no compiled size holds {size}; the largest is {sizes[-1]}")
    return sizes[index]
