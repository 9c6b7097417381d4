"""Choosing the next token of every row, on the device.

R rows, V vocabulary. A row's result depends on its own logits, settings, seed and position alone:
every operation works row by row, and what only some rows ask for is computed under a `cond` and
taken over by those rows only. Nothing sorts the vocabulary: top-k and top-p thresholds are found
by bisection over the ordered bit patterns of float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from serving.avoidance import avoid
from serving.ngram_filter import NgramFilter
from serving.request import MAX_LOGPROBS
from serving.sampling_state import SamplingSettings, TokenMemory

# Drawing finds a block of so many tokens first, then one in it: two short sums, each with a random
# number of its own, instead of one long sum or a random number for every token.
_BLOCK = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Logprobs:
    """Log-probabilities under the model's own distribution; zeros where nobody asked.

    Attributes:
        chosen: float32[R]; of the token in question.
        top_ids: int32[R, K]; the K = min(20, V) most likely tokens, best first.
        top: float32[R, K]; their log-probabilities.
    """

    chosen: jax.Array
    top_ids: jax.Array
    top: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled:
    """A step's choice.

    Attributes:
        tokens: int32[R]; -1 where the logits were not finite, `serving.avoidance.NO_TOKEN` where
            every token is forbidden.
        logprobs: Of `tokens`.
    """

    tokens: jax.Array
    logprobs: Logprobs


def sample(
    logits: jax.Array,
    settings: SamplingSettings,
    memory: TokenMemory,
    *,
    slots: jax.Array,
    generated: jax.Array,
    positions: jax.Array,
    allowed: jax.Array | None = None,
    ngrams: NgramFilter | None = None,
) -> tuple[Sampled, TokenMemory]:
    """Choose a token for each row and count it.

    Args:
        logits: float32[R, V] of the model.
        settings: One row each.
        memory: Of all slots.
        slots: int32[R], the slot of each row.
        generated: int32[R], tokens that the row's request has generated so far.
        positions: int32[R], where in its sequence the token to be chosen will stand.
        allowed: bool[R, V], the tokens that may be chosen, at least one a row; None for all. It
            changes no log-probability.
        ngrams: What rows with `avoids_ngrams` must not say; `memory` has the newest tokens then.

    Returns:
        The choice, and the memory with it counted.
    """
    adjusted = _adjusted(logits, settings, memory, slots, generated)
    if allowed is not None:
        adjusted = keep_allowed(adjusted, logits, allowed)
    tokens = choose(adjusted, settings, positions)
    if ngrams is not None and memory.recent is not None:
        tokens = avoid(
            tokens,
            settings.avoids_ngrams,
            lambda: (adjusted, settings),
            positions,
            ngrams=ngrams,
            recent=memory.recent[slots],
            choose=choose,
        )
    named = jnp.maximum(tokens, 0)
    logprobs = jax.lax.cond(
        jnp.any(settings.wants_logprobs),
        lambda: score(logits, named),
        lambda: no_logprobs(*logits.shape),
    )
    is_finite = jnp.isfinite(jnp.max(logits, axis=-1))
    sampled = Sampled(tokens=jnp.where(is_finite, tokens, -1), logprobs=logprobs)
    return sampled, memory.with_tokens(slots, named)


def resample(
    sampled: Sampled,
    logits: jax.Array,
    settings: SamplingSettings,
    memory: TokenMemory,
    *,
    slots: jax.Array,
    generated: jax.Array,
    positions: jax.Array,
    ngrams: NgramFilter,
) -> Sampled:
    """Choose again for the rows with `avoids_ngrams` whose token ends a forbidden n-gram.

    Args are those of `sample`, whose result `sampled` is, but `settings` have a row for each slot;
    `memory` has counted the token.
    """
    if memory.recent is None:
        raise ValueError("a memory without the newest tokens cannot tell what they end")

    def find() -> tuple[jax.Array, SamplingSettings]:
        rows = settings.rows(slots)
        before = memory.without_tokens(slots, jnp.maximum(sampled.tokens, 0))
        return _adjusted(logits, rows, before, slots, generated), rows

    tokens = avoid(
        sampled.tokens,
        settings.avoids_ngrams[slots],
        find,
        positions,
        ngrams=ngrams,
        # Without the newest, which is the chosen one; nothing reads the oldest.
        recent=jnp.roll(memory.recent[slots], 1, axis=1),
        choose=choose,
    )
    has_changed = tokens != sampled.tokens

    def replaced() -> Sampled:
        logprobs = jax.lax.cond(
            jnp.any(has_changed & settings.wants_logprobs[slots]),
            lambda: score(logits, jnp.maximum(tokens, 0)),
            lambda: sampled.logprobs,
        )
        return replace_rows(sampled, Sampled(tokens=tokens, logprobs=logprobs), has_changed)

    again: Sampled = jax.lax.cond(jnp.any(has_changed), replaced, lambda: sampled)
    return again


def replace_rows(sampled: Sampled, again: Sampled, is_replaced: jax.Array) -> Sampled:
    """Some rows, bool[R], as they were sampled again, and the others as they were."""
    rows: Sampled = jax.tree.map(
        lambda new, old: jnp.where(jnp.expand_dims(is_replaced, range(1, new.ndim)), new, old),
        again,
        sampled,
    )
    return rows


def adjust(
    logits: jax.Array, settings: SamplingSettings, memory: TokenMemory, generated: jax.Array
) -> jax.Array:
    """Penalties, then bias, then the mask of min_tokens; `memory` has one row for each logits row.

    The repetition penalty is CTRL's (arXiv 1909.05858, section 4.1) over prompt and generated
    tokens; presence and frequency penalties are OpenAI's, over generated tokens.
    """
    was_generated = memory.counts > 0
    penalty = settings.repetition_penalty[:, None]
    repeated = jnp.where(logits > 0, logits / penalty, logits * penalty)
    result = jnp.where(was_generated | memory.in_prompt, repeated, logits)
    frequency = settings.frequency_penalty[:, None] * memory.counts.astype(jnp.float32)
    presence = settings.presence_penalty[:, None] * was_generated.astype(jnp.float32)
    result = result - frequency - presence + memory.bias
    is_early = generated < settings.min_tokens
    return jnp.where(memory.stops & is_early[:, None], -jnp.inf, result)


def keep_allowed(adjusted: jax.Array, logits: jax.Array, allowed: jax.Array) -> jax.Array:
    """-inf for all but the `allowed` tokens, bool[R, V].

    Where `min_tokens` forbids every one of them, they count with the model's own `logits`.
    """
    kept = jnp.where(allowed, adjusted, -jnp.inf)
    has_any = jnp.max(kept, axis=-1, keepdims=True) > -jnp.inf
    return jnp.where(has_any, kept, jnp.where(allowed, logits, -jnp.inf))


def choose(
    logits: jax.Array,
    settings: SamplingSettings,
    positions: jax.Array,
    attempt: jax.Array | None = None,
) -> jax.Array:
    """int32[R]: the most likely token of greedy rows, a drawn one of the others.

    `attempt`, int32[], from 1 on, draws with other random numbers than the first time.
    """
    greedy = first_argmax(logits)
    is_drawn = settings.temperature > 0
    drawn = jax.lax.cond(
        jnp.any(is_drawn), lambda: _draw(logits, settings, positions, attempt), lambda: greedy
    )
    return jnp.where(is_drawn, drawn, greedy)


def score(logits: jax.Array, tokens: jax.Array) -> Logprobs:
    """Log-probabilities of int32[R] `tokens` and of the most likely ones under float32[R, V]."""
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    top, top_ids = jax.lax.top_k(logits, min(MAX_LOGPROBS, logits.shape[-1]))
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)
    return Logprobs(chosen=(chosen - total)[:, 0], top_ids=top_ids, top=top - total)


def no_logprobs(rows: int, vocab_size: int) -> Logprobs:
    """Zeros in the shape of `score`'s result."""
    width = min(MAX_LOGPROBS, vocab_size)
    return Logprobs(
        chosen=jnp.zeros(rows, jnp.float32),
        top_ids=jnp.zeros((rows, width), jnp.int32),
        top=jnp.zeros((rows, width), jnp.float32),
    )


def first_argmax(values: jax.Array) -> jax.Array:
    """int32[R]: the first column of each row's maximum.

    Two plain reductions, which XLA vectorises, where its own argmax is a scalar loop on CPUs. A row
    with NaN gives the last column.
    """
    columns = jnp.arange(values.shape[-1], dtype=jnp.int32)[None, :]
    is_peak = values == jnp.max(values, axis=-1, keepdims=True)
    last = values.shape[-1] - 1
    return jnp.min(jnp.where(is_peak, columns, last), axis=-1).astype(jnp.int32)


def keep_top_k(logits: jax.Array, top_k: jax.Array) -> jax.Array:
    """-inf for all but each row's `top_k` largest and what ties with the last; 0 keeps all."""
    keys = _ordered_bits(logits)
    wanted = top_k[:, None]
    threshold = _bisect(
        lambda at: jnp.sum((keys >= at).astype(jnp.int32), axis=-1, keepdims=True) >= wanted,
        rows=logits.shape[0],
    )
    return jnp.where((keys >= threshold) | (wanted <= 0), logits, -jnp.inf)


def keep_top_p(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """-inf for all but the smallest set of most likely tokens that has probability `top_p`.

    1 keeps all. Ties with the least likely of the set stay; so does, always, the most likely token.
    """
    keys = _ordered_bits(logits)
    probabilities = jax.nn.softmax(logits, axis=-1)
    # Not zero, so that a set of no token never suffices.
    wanted = jnp.maximum(top_p, 1e-9)[:, None]
    threshold = _bisect(
        lambda at: (
            jnp.sum(jnp.where(keys >= at, probabilities, 0.0), axis=-1, keepdims=True) >= wanted
        ),
        rows=logits.shape[0],
    )
    return jnp.where((keys >= threshold) | (wanted >= 1.0), logits, -jnp.inf)


def keep_min_p(logits: jax.Array, min_p: jax.Array) -> jax.Array:
    """-inf for tokens less than `min_p` times as likely as the most likely one; 0 keeps all."""
    floor = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(min_p)[:, None]
    return jnp.where(logits >= floor, logits, -jnp.inf)


def _draw(
    logits: jax.Array,
    settings: SamplingSettings,
    positions: jax.Array,
    attempt: jax.Array | None,
) -> jax.Array:
    """Draw from softmax(logits / temperature), truncated, by inverting its cumulative sum."""
    temperature = jnp.where(settings.temperature > 0, settings.temperature, 1.0)
    scaled = logits / temperature[:, None]
    for value, is_on, keep in (
        (settings.top_k, settings.top_k > 0, keep_top_k),
        (settings.top_p, settings.top_p < 1, keep_top_p),
        (settings.min_p, settings.min_p > 0, keep_min_p),
    ):
        scaled = _where_on(scaled, value, is_on, keep)
    weights = jnp.exp(scaled - jnp.max(scaled, axis=-1, keepdims=True))
    padded = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % _BLOCK)))
    # A barrier: each consumer would compute the exponentials again, in a rounding of its own.
    blocks = jax.lax.optimization_barrier(padded.reshape(weights.shape[0], -1, _BLOCK))
    first, second = jax.vmap(_uniforms, (0, 0, None))(settings.seed, positions, attempt)
    block = _invert(jnp.sum(blocks, axis=-1), first)
    within = _invert(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], second)
    return block * _BLOCK + within


def _invert(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """int32[R]: a column of non-negative float32[R, n], with probability as its weight.

    `uniform`, float32[R] in [0, 1), decides. A column without weight is never chosen; a row that is
    not finite gives any.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    passed = jnp.sum(
        (cumulative <= uniform[:, None] * cumulative[:, -1:]).astype(jnp.int32), axis=-1
    )
    # Rounding may bring the target up to the whole sum: then the last column with any weight.
    columns = jnp.arange(weights.shape[-1], dtype=jnp.int32)[None]
    last = jnp.max(jnp.where(weights > 0, columns, 0), axis=-1)
    return jnp.minimum(passed, last)


def _uniforms(
    seed: jax.Array, position: jax.Array, attempt: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Two of float32[] in [0, 1) that seed uint32[2], position and attempt int32[] alone decide."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), position)
    if attempt is not None:
        key = jax.random.fold_in(key, attempt)
    drawn = jax.random.uniform(key, (2,), jnp.float32)
    return drawn[0], drawn[1]


def _where_on(
    logits: jax.Array,
    value: jax.Array,
    is_on: jax.Array,
    keep: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """`keep` applied to the rows that ask for it; not even computed if none does."""
    kept: jax.Array = jax.lax.cond(
        jnp.any(is_on),
        lambda: jnp.where(is_on[:, None], keep(logits, value), logits),
        lambda: logits,
    )
    return kept


def _adjusted(
    logits: jax.Array,
    settings: SamplingSettings,
    memory: TokenMemory,
    slots: jax.Array,
    generated: jax.Array,
) -> jax.Array:
    """`adjust` for the rows that ask for it; not even computed if none does."""
    adjusted: jax.Array = jax.lax.cond(
        jnp.any(settings.is_adjusted),
        lambda: jnp.where(
            settings.is_adjusted[:, None],
            adjust(logits, settings, _take(memory, slots), generated),
            logits,
        ),
        lambda: logits,
    )
    return adjusted


def _take(memory: TokenMemory, slots: jax.Array) -> TokenMemory:
    taken: TokenMemory = jax.tree.map(lambda array: array[slots], memory)
    return taken


def _ordered_bits(values: jax.Array) -> jax.Array:
    """uint32 keys that compare as the float32 values do; -0 counts as 0."""
    bits = jax.lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.uint32)
    is_negative = bits >> 31 == 1
    return jnp.where(is_negative, ~bits, bits | jnp.uint32(0x80000000))


def _bisect(holds: Callable[[jax.Array], jax.Array], *, rows: int) -> jax.Array:
    """uint32[rows, 1]: the largest key for which `holds`, which falls from true to false."""

    def narrow(step: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        return jnp.where(holds(candidate), candidate, low)

    found: jax.Array = jax.lax.fori_loop(0, 32, narrow, jnp.zeros((rows, 1), jnp.uint32))
    return found
