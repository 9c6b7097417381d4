"""The engine's figures at one moment."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Read by metrics and benchmarks; totals count from the engine's construction.

    Attributes:
        queued: Requests that wait for a slot.
        queued_tokens: Their prompt tokens and `max_tokens`.
        running: Requests that hold a slot.
        max_slots: Slots.
        kv_tokens_used: Tokens of running requests in the key/value cache.
        kv_tokens_capacity: Tokens that the cache holds.
        prompt_tokens_total: Prompt tokens of admitted requests.
        generated_tokens_total: Tokens sampled and delivered.
        finished_total: Requests that ended, however they did.
        aborted_total: Requests that ended by abort or deadline.
        steps_total: Steps of the compute thread.
        compilations_total: Programs made ready, from source or from the compilation cache.
        recompilations_after_ready: Programs compiled after the engine was ready; any is a bug.
        is_batch_invariant: Whether the warm-up found every kept decode program to give the same
            bits; if not, a request's tokens may depend on its neighbours.
    """

    queued: int
    queued_tokens: int
    running: int
    max_slots: int
    kv_tokens_used: int
    kv_tokens_capacity: int
    prompt_tokens_total: int
    generated_tokens_total: int
    finished_total: int
    aborted_total: int
    steps_total: int
    compilations_total: int
    recompilations_after_ready: int
    is_batch_invariant: bool
