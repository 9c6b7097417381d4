"""Runs every program of a runner once, and finds out which of them give the same bits.

What is compared, and what follows from it, is in `serving.invariance` and `serving.draft_probe`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from serving.draft_probe import are_drafts_exact, measure_steps
from serving.invariance import ProbeResult, kept_shapes, probe_positions
from serving.programs import DecodeRow
from serving.request import SamplingParams
from serving.sampler import Sampled
from serving.step_times import StepTimes

if TYPE_CHECKING:
    from serving.runner import Runner

logger = logging.getLogger(__name__)

# What a probe samples with: every part of the sampler that a row can ask for.
_PROBE = SamplingParams(
    temperature=0.8, top_k=40, top_p=0.95, min_p=0.001, logit_bias={0: 1.0}, seed=1, logprobs=20
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invariance:
    """What of a request's numbers depends on how its steps were cut.

    Attributes:
        decode_shapes: (rows, cache positions read) that give the same bits, cheapest first.
        is_batch_invariant: Whether the tokens of a request do not depend on its neighbours.
        is_chunk_invariant: Whether the cache holds the same bits however a prompt was taken in.
    """

    decode_shapes: list[tuple[int, int]]
    is_batch_invariant: bool
    is_chunk_invariant: bool


def find_invariance(runner: Runner) -> Invariance:
    """Run every program of a runner that has all, and compare the bits; slots stay open."""
    # A slot on each chip that has pages of its own: they must all give the same.
    slots = range(runner.chips)
    for slot in slots:
        for index in range(runner.pages_a_slot):
            runner.place_page(slot, index, min(index + 1, runner.pages_a_chip - 1))
    token_ids = _prompt(runner)
    is_chunk_invariant = _are_chunks_same(runner, token_ids)
    for slot in slots:
        for start in range(0, len(token_ids), runner.buckets.largest_chunk):
            chunk = token_ids[start : start + runner.buckets.largest_chunk]
            runner.prefill(slot, start, chunk, chunk)
        _open(runner, slot)
    positions = probe_positions(runner.buckets.decode_keys, runner.max_model_len)
    results = {
        shape: [
            _decode(runner, shape, token_ids[position], position)
            for position in positions
            if position < shape[1]
        ]
        for shape in runner.programs.decode
    }
    shapes, is_batch_invariant = kept_shapes(results)
    is_batch_invariant &= _are_constrained_same(runner, token_ids[positions[0]], results, shapes)
    if len(shapes) < len(results):
        logger.warning(
            "%d of %d decode shapes round differently: not used",
            len(results) - len(shapes),
            len(results),
        )
    if not is_batch_invariant:
        logger.error("rows of one decode step differ: tokens may depend on the batch")
    if not is_chunk_invariant:
        logger.warning("prompt chunks round differently: prefixes are shared in whole chunks")
    return Invariance(
        decode_shapes=shapes,
        is_batch_invariant=is_batch_invariant,
        is_chunk_invariant=is_chunk_invariant,
    )


def measure_drafts(runner: Runner) -> StepTimes | None:
    """What steps with drafts take, if such steps give the same tokens; after `find_invariance`."""

    def decode(rows: Sequence[DecodeRow]) -> Sampled:
        return runner.decode(rows).sampled

    _open(runner, 0)
    if not are_drafts_exact(decode, _prompt(runner), runner.buckets):
        return None
    runner.open_slot(0, SamplingParams(), seed=1, prompt=(0,), stops=frozenset())
    return measure_steps(decode, runner.buckets)


def _open(runner: Runner, slot: int, *, is_constrained: bool = False) -> None:
    runner.open_slot(
        slot, _PROBE, seed=1, prompt=(0,), stops=frozenset(), is_constrained=is_constrained
    )


def _prompt(runner: Runner) -> list[int]:
    """What slots hold, the same at every call."""
    buckets = runner.buckets
    # Beyond the first page by a step of drafts, however few sizes there are.
    drafted = buckets.page_size + buckets.batches[-1]
    last = max(
        probe_positions(buckets.decode_keys, runner.max_model_len)[-1],
        min(drafted, runner.max_model_len - 1),
    )
    generator = np.random.default_rng(0)
    return [int(token) for token in generator.integers(0, runner.model.vocab_size, last + 1)]


def _are_chunks_same(runner: Runner, token_ids: list[int]) -> bool:
    """Whether a token's keys and values are the same bits however it is taken in."""
    buckets = runner.buckets
    prompt = token_ids[: buckets.largest_chunk]
    runner.prefill(0, 0, prompt, prompt)
    expected = runner.cached_bits(len(prompt))
    is_same = True
    for chunk, keys in runner.programs.prefill:
        for start in range(0, len(prompt), chunk):
            part = prompt[start : start + chunk]
            if start + len(part) <= keys:
                runner.prefill_by((chunk, keys), 0, start, part, part)
        known = min(keys, len(prompt))
        is_same &= runner.cached_bits(known) == expected[:known]
    for position in range(min(len(prompt), buckets.page_size)):
        row = DecodeRow(prompt[position], 0, position, 0)
        runner.decode_by((buckets.batches[0], buckets.decode_keys[0]), [row])
    return is_same and runner.cached_bits(len(prompt)) == expected


def _decode(runner: Runner, shape: tuple[int, int], token: int, position: int) -> ProbeResult:
    """One decode step in which all rows are the same."""
    sampled = runner.decode_by(shape, _same_rows(runner, shape[0], token, position)).sampled
    return _result(position, sampled)


def _same_rows(runner: Runner, rows: int, token: int, position: int) -> list[DecodeRow]:
    """Rows that are the same, on every chip that has pages of its own."""
    return [
        DecodeRow(token=token, slot=index % runner.chips, position=position, generated=0)
        for index in range(rows)
    ]


def _are_constrained_same(
    runner: Runner,
    token: int,
    results: Mapping[tuple[int, int], Sequence[ProbeResult]],
    shapes: Sequence[tuple[int, int]],
) -> bool:
    """Whether rows that may choose any token choose as `decode` does, in every batch size."""
    reference = results[shapes[-1]][0]
    for slot in range(runner.chips):
        runner.quiet_slot(slot)
        _open(runner, slot, is_constrained=True)
    is_same = True
    for rows in runner.programs.constrain:
        shape = (rows, runner.buckets.decode_keys[0])
        decoded = runner.decode_by(shape, _same_rows(runner, rows, token, reference.position))
        words = -(-runner.model.vocab_size // 32)
        again = runner.constrain(
            decoded, np.full((rows, words), -1, np.int32), np.ones(rows, np.bool_)
        )
        found = _result(reference.position, again).rows
        is_same &= shape not in shapes or found == (reference.rows[0],) * rows
    for slot in range(runner.chips):
        runner.quiet_slot(slot)
    return is_same


def _result(position: int, sampled: Sampled) -> ProbeResult:
    tokens = np.asarray(sampled.tokens).tolist()
    logprobs = np.asarray(sampled.logprobs.top)
    rows = tuple((token, bits.tobytes()) for token, bits in zip(tokens, logprobs, strict=True))
    return ProbeResult(position=position, rows=rows)
