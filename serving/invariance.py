"""Does a request's step round the same in every compiled shape? Found out, not assumed.

Which rows and how many cache positions a decode step runs with depends on a request's neighbours.
Its tokens must not. XLA chooses its kernels by shape, and kernels may add in different orders, so
the warm-up feeds the same row to every shape and keeps those shapes that give the same bits as the
largest, which is always enough to serve with. Where shapes are dropped the engine is slower, not
wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a decode step of identical rows gave.

    Attributes:
        position: Where the token stood.
        rows: For each row the sampled token and the bits of its logprobs.
    """

    position: int
    rows: tuple[tuple[int, bytes], ...]


def probe_positions(keys: Sequence[int], context_tokens: int) -> list[int]:
    """For each number of cache positions read, a position that needs at least that many."""
    starts = [0, *keys[:-1]]
    wanted = {
        min(start + 5, end - 1, context_tokens - 1) for start, end in zip(starts, keys, strict=True)
    }
    return sorted(wanted)


def kept_shapes(
    results: Mapping[tuple[int, int], Sequence[ProbeResult]],
) -> tuple[list[tuple[int, int]], bool]:
    """The (rows, keys) shapes that agree with the largest, cheapest first, and whether it is sound.

    A shape is kept if each of its rows equals the first row of the largest shape at every position
    that it can probe. The largest is kept anyhow; it is sound if its own rows are all equal.
    """
    largest = max(results)
    reference = {result.position: result.rows[0] for result in results[largest]}
    agreeing = [
        shape
        for shape, probes in results.items()
        if all(row == reference[probe.position] for probe in probes for row in probe.rows)
    ]
    return sorted({*agreeing, largest}), largest in agreeing
