"""May a request feed several tokens in one decode step? And what would that cost? Found out.

Both use slot 0, whose table must name pages.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from serving.buckets import Buckets
from serving.programs import DecodeRow
from serving.sampler import Sampled
from serving.step_times import StepTimes, measure

logger = logging.getLogger(__name__)

Decode: TypeAlias = Callable[[Sequence[DecodeRow]], Sampled]
"""Runs a decode step; `serving.runner.Runner.decode`."""


def are_drafts_exact(decode: Decode, token_ids: Sequence[int], buckets: Buckets) -> bool:
    """Whether successive tokens of a slot give the same bits in one step as one by one.

    Args:
        decode: Runs a step.
        token_ids: What the cache holds of the slot, from its first position on.
        buckets: The compiled sizes.
    """
    # From one page into the next, where there is a next.
    start = max(1, min(buckets.page_size - 1, len(token_ids) - buckets.batches[-1]))
    places = range(start, min(start + buckets.batches[-1], len(token_ids)))
    # Not the tokens that the cache holds there, lest one be read before it is written.
    rows = [DecodeRow(token_ids[at - 1], 0, at, at) for at in places]
    if len(rows) < 2:
        return False  # the context is too short for a draft across pages
    together = decode(rows)
    is_same = True
    for index, row in enumerate(rows):
        alone = decode([row])
        for one, all_rows in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            is_same &= np.asarray(one)[0].tobytes() == np.asarray(all_rows)[index].tobytes()
    if not is_same:
        logger.warning("tokens of one request round differently in one step: no speculation")
    return is_same


def measure_steps(decode: Decode, buckets: Buckets) -> StepTimes:
    """What steps of each compiled number of rows take where they read the fewest pages."""
    pipelined, synchronous = {}, {}
    position = buckets.decode_keys[0] - 1
    for size in buckets.batches:
        rows = [DecodeRow(0, 0, position, 1)] * size
        pipelined[size], synchronous[size] = measure(functools.partial(decode, rows), _read_tokens)
    return StepTimes(pipelined=pipelined, synchronous=synchronous)


def _read_tokens(sampled: Sampled) -> NDArray[np.int32]:
    return np.asarray(sampled.tokens)
