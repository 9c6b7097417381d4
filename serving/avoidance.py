"""Taking back tokens that would end a forbidden n-gram: MemFree decoding.

Ippolito et al. 2022 (arXiv 2210.17546), section 4: a token that was chosen and would complete an
n-gram of the training data is suppressed, and the choice is made again. Only what was chosen is
looked up, so a step costs one look-up for each row, and a second choice where one is needed.

Suppressing one token after the other until one passes gives the distribution that masking all
forbidden tokens beforehand would give: drawing without replacement in proportion to the weights
and keeping the first of a subset is drawing from that subset in proportion (Luce 1959). Greedy
takes the most likely token that passes. top_k, top_p and min_p cut off what remains at each turn,
so a token that is suppressed makes room for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from serving.ngram_filter import NgramFilter
from serving.sampling_state import SamplingSettings

NO_TOKEN = -2
"""In place of a token: every one would have ended a forbidden n-gram."""


class Choose(Protocol):
    """`serving.sampler.choose`."""

    def __call__(
        self,
        logits: jax.Array,
        settings: SamplingSettings,
        positions: jax.Array,
        attempt: jax.Array,
    ) -> jax.Array:
        """int32[R]; `attempt` counts the choices at a position, the first apart."""
        ...


def avoid(
    tokens: jax.Array,
    avoids_ngrams: jax.Array,
    find: Callable[[], tuple[jax.Array, SamplingSettings]],
    positions: jax.Array,
    *,
    ngrams: NgramFilter,
    recent: jax.Array,
    choose: Choose,
) -> jax.Array:
    """Choose again for the rows that avoid forbidden n-grams and would end one.

    Args:
        tokens: int32[R]; what was chosen, negative where nothing could be.
        avoids_ngrams: bool[R]; the rows that avoid n-grams.
        find: Gives float32[R, V], what it was chosen from, and the settings, one row each; needed
            only by a second choice, so that most steps have nothing to do for it.
        positions: int32[R], as `serving.sampler.sample` gets them.
        ngrams: The forbidden ones.
        recent: int32[R, n]; the newest tokens of each row, without the chosen one.
        choose: Chooses.

    Returns:
        int32[R]; `NO_TOKEN` where no token is left.
    """

    prefixes = ngrams.prefixes(recent)
    # A row that is not finite has no choice to make again.
    ends = avoids_ngrams & (tokens >= 0) & ngrams.ends(prefixes, tokens)

    def replaced() -> jax.Array:
        logits, settings = find()

        # Row by row: there are few, and each costs a pass over the vocabulary.
        def replace(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            pending, chosen = state
            row = jnp.argmax(pending)
            one: SamplingSettings = jax.tree.map(
                lambda column: jax.lax.dynamic_slice_in_dim(column, row, 1), settings
            )
            position = jax.lax.dynamic_slice_in_dim(positions, row, 1)
            prefix = prefixes.row(row)
            again = _choose_until(
                lambda token: ~ngrams.ends(prefix, token)[0],
                lambda left, attempt: choose(left, one, position, attempt),
                jax.lax.dynamic_slice_in_dim(logits, row, 1),
                jax.lax.dynamic_slice_in_dim(chosen, row, 1),
            )
            return pending.at[row].set(False), chosen.at[row].set(again[0])

        return jax.lax.while_loop(lambda state: jnp.any(state[0]), replace, (ends, tokens))[1]

    found: jax.Array = jax.lax.cond(jnp.any(ends), replaced, lambda: tokens)
    return found


def _choose_until(
    passes: Callable[[jax.Array], jax.Array],
    choose: Callable[[jax.Array, jax.Array], jax.Array],
    logits: jax.Array,
    refused: jax.Array,
) -> jax.Array:
    """int32[1]: choose from float32[1, V] without what was refused, until a token passes."""

    def goes_on(state: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return ~state[-1]

    def choose_again(
        state: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        left, token, attempt, _ = state
        left = left.at[0, token[0]].set(-jnp.inf)
        attempt += 1
        is_empty = (jnp.max(left) == -jnp.inf) | (attempt >= logits.shape[1])
        token = jnp.where(is_empty, NO_TOKEN, choose(left, attempt))
        return left, token, attempt, is_empty | passes(token)

    state = (logits, refused, jnp.int32(0), jnp.bool_(False))
    chosen: jax.Array = jax.lax.while_loop(goes_on, choose_again, state)[1]
    return chosen
