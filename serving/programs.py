"""The engine's programs, as pure functions that the runner compiles for each shape.

B rows of a decode step, C tokens of a prompt chunk, V vocabulary. Caches and token memory are
donated and come back updated.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from serving.language_model import Cache, LanguageModel
from serving.ngram_filter import NgramFilter
from serving.page_tables import RowsByChip
from serving.sampler import Logprobs, Sampled, no_logprobs, replace_rows, resample, sample, score
from serving.sampling_state import SamplingSettings, TokenMemory

DECODE_FIELDS = ("tokens", "slots", "positions", "generated")
"""What the rows of `decode`'s `batch` are."""

ON_DEVICE = -1
"""In place of a token: the slot's newest, which the step before sampled."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecodeRow:
    """A row of a decode step: feed `token`, which stands at `position` in `slot`'s sequence.

    `token` may be `ON_DEVICE`; `generated` counts the tokens that the request has
    generated so far.
    """

    token: int
    slot: int
    position: int
    generated: int


def prefill(
    model: LanguageModel,
    params: object,
    cache: Cache,
    tokens: jax.Array,
    targets: jax.Array,
    start: jax.Array,
    pages: jax.Array,
    wants_logprobs: jax.Array,
) -> tuple[Logprobs, Cache]:
    """Take a chunk of a prompt into its pages.

    Args:
        model: The functions.
        params: Its parameters.
        cache: All pages; donated.
        tokens: int32[C], padded.
        targets: int32[C]; after each token, the one whose logprob is wanted.
        start: int32[]; the position of the first token, a multiple of the page size.
        pages: int32[P]; the pages that are read, those that are written among them. Where chips
            have pages of their own int32[chips, P], see `serving.page_tables`.
        wants_logprobs: bool[]; whether `targets` are scored, otherwise zeros come back.

    Returns:
        Logprobs of `targets`, rows of padding undefined, and the cache.
    """
    hidden, cache = model.forward_step(params, tokens[None, :], start[None], cache, pages[None, :])
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
    newest: jax.Array,
    settings: SamplingSettings,
    batch: jax.Array,
    pages: jax.Array | RowsByChip,
) -> tuple[Sampled, jax.Array, Cache, TokenMemory, jax.Array]:
    """Feed each row's newest token and sample the next.

    Args:
        model: The functions.
        params: Its parameters.
        cache: All pages; donated.
        memory: Of all slots; donated.
        newest: int32[slots]; the token that each slot sampled last; donated.
        settings: Of all slots.
        batch: int32[4, B], the rows of `DECODE_FIELDS`: the token to feed or `ON_DEVICE`, its slot,
            its position, and how many tokens the request has generated.
        pages: int32[B, P]; the pages that each row reads; or by chip.

    Returns:
        What was sampled, the logits float32[B, V], the cache, the memory and the newest tokens.
    """
    given, slots, positions, generated = batch
    tokens = jnp.where(given == ON_DEVICE, newest[slots], given)
    hidden, cache = model.forward_step(params, tokens[:, None], positions, cache, pages)
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
    newest = newest.at[slots].set(jnp.maximum(sampled.tokens, 0))
    return sampled, logits, cache, memory, newest


def constrain(
    sampled: Sampled,
    logits: jax.Array,
    memory: TokenMemory,
    newest: jax.Array,
    settings: SamplingSettings,
    batch: jax.Array,
    masks: jax.Array,
    is_constrained: jax.Array,
    ngrams: NgramFilter | None,
) -> tuple[Sampled, TokenMemory, jax.Array]:
    """Choose again, among the tokens that a grammar allows, for the rows that have one.

    Which tokens those are depends on the token before, so the host says it after `decode` has been
    launched. The other rows keep what `decode` gave them.

    Args:
        sampled: What `decode` gave.
        logits: float32[B, V], likewise.
        memory: Of all slots; donated.
        newest: int32[slots]; donated.
        settings: Of all slots; neutral but for those with a constraint, which `decode` saw neutral.
        batch: What `decode` got.
        masks: int32[B, ceil(V / 32)]; bit i of word w allows token 32 w + i.
        is_constrained: bool[B]; the rows to choose for.
        ngrams: What rows with `avoids_ngrams` must not say; None if no row may have it.

    Returns:
        What is sampled now, the memory and the newest tokens.
    """
    _, slots, positions, generated = batch
    bits = jnp.arange(32, dtype=jnp.int32)
    allowed = ((masks[:, :, None] >> bits) & 1).reshape(masks.shape[0], -1) == 1
    allowed = allowed[:, : logits.shape[1]] | ~is_constrained[:, None]
    first = jnp.maximum(sampled.tokens, 0)
    memory = memory.without_tokens(slots, first)
    again, _ = sample(
        logits,
        settings.rows(slots),
        memory,
        slots=slots,
        generated=generated,
        positions=positions + 1,
        allowed=allowed,
        ngrams=ngrams,
    )
    return _settled(replace_rows(sampled, again, is_constrained), memory, newest, slots)


def avoid_ngrams(
    sampled: Sampled,
    logits: jax.Array,
    memory: TokenMemory,
    newest: jax.Array,
    settings: SamplingSettings,
    batch: jax.Array,
    ngrams: NgramFilter,
) -> tuple[Sampled, TokenMemory, jax.Array]:
    """Choose again for the rows that avoid n-grams and have just ended a forbidden one.

    Not a part of `decode`, so that steps without such rows have nothing to do with it.

    Args:
        sampled: What `decode` or `constrain` gave.
        logits: float32[B, V], what `decode` gave.
        memory: Of all slots; donated.
        newest: int32[slots]; donated.
        settings: Of all slots, as `decode` saw them.
        batch: What `decode` got.
        ngrams: The forbidden ones.

    Returns:
        What is sampled now, the memory and the newest tokens.
    """
    _, slots, positions, generated = batch
    again = resample(
        sampled,
        logits,
        settings,
        memory,
        slots=slots,
        generated=generated,
        positions=positions + 1,
        ngrams=ngrams,
    )
    before, after = (jnp.maximum(each.tokens, 0) for each in (sampled, again))

    # Row by row: mostly there is none, and then what the step noted stays as it is.
    def correct(
        state: tuple[jax.Array, TokenMemory, jax.Array],
    ) -> tuple[jax.Array, TokenMemory, jax.Array]:
        pending, memory, newest = state
        row = jnp.argmax(pending)
        memory = memory.with_other_token(slots[row], before[row], after[row])
        return pending.at[row].set(False), memory, newest.at[slots[row]].set(after[row])

    state = (before != after, memory, newest)
    _, memory, newest = jax.lax.while_loop(lambda state: jnp.any(state[0]), correct, state)
    return again, memory, newest


def _settled(
    sampled: Sampled, memory: TokenMemory, newest: jax.Array, slots: jax.Array
) -> tuple[Sampled, TokenMemory, jax.Array]:
    """What is sampled for good, with the memory and the newest tokens that follow from it."""
    tokens = jnp.maximum(sampled.tokens, 0)
    return sampled, memory.with_tokens(slots, tokens), newest.at[slots].set(tokens)


def remember(memory: TokenMemory, slot: jax.Array, row: TokenMemory) -> TokenMemory:
    """Start a slot's token memory afresh; `memory` is donated."""
    return memory.with_row(slot, row)
