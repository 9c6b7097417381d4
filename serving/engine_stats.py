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
        kv_tokens_used: Positions of the key/value cache in pages that running requests hold.
        kv_tokens_capacity: Positions of all pages.
        kv_tokens_findable: Positions in pages that later prompts can share.
        prefill_tokens_total: Prompt tokens of requests that were given a slot; those of a request
            that was preempted count again.
        cached_tokens_total: Those of them that were found in the cache.
        preemptions_total: How often a request gave up its pages to others.
        drafted_tokens_total: Tokens that were guessed ahead and computed.
        accepted_tokens_total: Those of them that turned out to be the next.
        prompt_tokens_total: Prompt tokens of admitted requests.
        generated_tokens_total: Tokens sampled and delivered.
        finished_total: Requests that ended, however they did.
        aborted_total: Requests that ended by abort or deadline.
        steps_total: Steps of the compute thread.
        compilations_total: Programs made ready, from source or from the compilation cache.
        recompilations_after_ready: Programs compiled after the engine was ready; any is a bug.
        is_batch_invariant: Whether the warm-up found every kept decode program to give the same
            bits; if not, a request's tokens may depend on its neighbours.
        is_chunk_invariant: Whether a token's keys and values are the same bits however its prompt
            is cut; if not, prefixes are shared in whole chunks only.
    """

    queued: int
    queued_tokens: int
    running: int
    max_slots: int
    kv_tokens_used: int
    kv_tokens_capacity: int
    kv_tokens_findable: int
    prefill_tokens_total: int
    cached_tokens_total: int
    preemptions_total: int
    drafted_tokens_total: int
    accepted_tokens_total: int
    prompt_tokens_total: int
    generated_tokens_total: int
    finished_total: int
    aborted_total: int
    steps_total: int
    compilations_total: int
    recompilations_after_ready: int
    is_batch_invariant: bool
    is_chunk_invariant: bool
