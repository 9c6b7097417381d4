"""The engine's programs, as pure functions that the runner compiles for each shape.

B rows of a decode step, C tokens of a prompt chunk, V vocabulary. Caches and token memory are
donated and come back updated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from serving.language_model import Cache, LanguageModel
from serving.sampler import Logprobs, Sampled, no_logprobs, sample, score
from serving.sampling_state import SamplingSettings, TokenMemory

DECODE_FIELDS = ("tokens", "slots", "positions", "generated")
"""What the rows of `decode`'s `batch` are."""


def prefill(
    model: LanguageModel,
    params: object,
    cache: Cache,
    tokens: jax.Array,
    targets: jax.Array,
    place: jax.Array,
    wants_logprobs: jax.Array,
    *,
    key_len: int,
) -> tuple[Logprobs, Cache]:
    """Take a chunk of a prompt into a slot.

    Args:
        model: The functions.
        params: Its parameters.
        cache: Of all slots; donated.
        tokens: int32[C], padded.
        targets: int32[C]; after each token, the one whose logprob is wanted.
        place: int32[2]: the slot, and the position of the first token.
        wants_logprobs: bool[]; whether `targets` are scored, otherwise zeros come back.
        key_len: Cache positions that are read.

    Returns:
        Logprobs of `targets`, rows of padding undefined, and the cache.
    """
    hidden, cache = model.forward_step(
        params, tokens[None, :], place[1:], cache, key_len=key_len, rows=place[:1]
    )
    logprobs = jax.lax.cond(
        wants_logprobs,
        lambda: score(model.unembed(params, hidden[0]), targets),
        lambda: no_logprobs(tokens.shape[0], model.vocab_size),
    )
    return logprobs, cache


def decode(
    model: LanguageModel,
    params: object,
    cache: Cache,
    memory: TokenMemory,
    settings: SamplingSettings,
    batch: jax.Array,
    *,
    key_len: int,
) -> tuple[Sampled, Cache, TokenMemory]:
    """Feed each row's newest token and sample the next.

    Args:
        model: The functions.
        params: Its parameters.
        cache: Of all slots; donated.
        memory: Of all slots; donated.
        settings: Of all slots.
        batch: int32[4, B], the rows of `DECODE_FIELDS`: newest token, slot, that token's
            position, and how many tokens the request has generated.
        key_len: Cache positions that are read.

    Returns:
        What was sampled, the cache and the memory.
    """
    tokens, slots, positions, generated = batch
    hidden, cache = model.forward_step(
        params, tokens[:, None], positions, cache, key_len=key_len, rows=slots
    )
    # Materialised once, so that no consumer recomputes the logits in its own rounding.
    logits = jax.lax.optimization_barrier(model.unembed(params, hidden[:, 0]))
    sampled, memory = sample(
        logits,
        settings.rows(slots),
        memory,
        slots=slots,
        generated=generated,
        positions=positions + 1,
    )
    return sampled, cache, memory


def remember(memory: TokenMemory, slot: jax.Array, row: TokenMemory) -> TokenMemory:
    """Start a slot's token memory afresh; `memory` is donated."""
    return memory.with_row(slot, row)


def erase(cache: Cache, slot: jax.Array) -> Cache:
    """Zero a slot, so that values that are not finite cannot reach its next request."""

    def zero(array: jax.Array) -> jax.Array:
        zeros = jnp.zeros(array.shape[1:], array.dtype)
        erased: jax.Array = jax.lax.dynamic_update_index_in_dim(array, zeros, slot, 0)
        return erased

    return jax.tree.map(zero, cache)
