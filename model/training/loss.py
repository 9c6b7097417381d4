"""Cross-entropy plus z-loss over a large vocabulary, without ever holding all logits.

The logits of a chunk of tokens are made, turned into loss and gradient at once, and dropped: the
peak is [chunk, V] rather than several [tokens, V], which on a CPU is memory traffic saved and on
an accelerator memory.
"""

from __future__ import annotations

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

_MAX_CHUNK_TOKENS = 1024

Sums: TypeAlias = tuple[jax.Array, jax.Array]
"""Sums over tokens of the cross-entropy (nats) and of log²Z, float32 scalars."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def cross_entropy_sums(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, z_weight: float
) -> Sums:
    """Loss of predicting `targets` from `hidden`.

    The gradient is that of `sum(cross-entropy) + z_weight · sum(log²Z)`, taken through the first
    result; the second is reported and carries none.

    Args:
        hidden: [M, D] final hidden states, already times the logit scale.
        table: [V, D] output embeddings; products run in its dtype and sum in float32.
        targets: int32[M].
        z_weight: Weight of log²Z in the gradient.
    """
    sums, _ = _forward(hidden, table, targets, z_weight)
    return sums


def _forward(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, z_weight: float
) -> tuple[Sums, tuple[jax.Array, jax.Array]]:
    tokens = hidden.shape[0]
    chunk = math.gcd(tokens, _MAX_CHUNK_TOKENS)

    def visit(
        carry: tuple[jax.Array, jax.Array, jax.Array], piece: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        entropy, squares, table_gradient = carry
        states, wanted = piece
        narrow = states.astype(table.dtype)
        logits = jnp.einsum("md,vd->mv", narrow, table, preferred_element_type=jnp.float32)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, wanted[:, None], axis=-1)[:, 0]
        weight = 1.0 + 2.0 * z_weight * log_z
        softmax = jnp.exp(logits - log_z[:, None]) * weight[:, None]
        softmax = jax.lax.optimization_barrier(softmax.astype(table.dtype))
        # The one-hot part of the gradient touches one row a token: gathered, never materialised.
        state_gradient = jnp.einsum(
            "mv,vd->md", softmax, table, preferred_element_type=jnp.float32
        ) - jnp.take(table, wanted, axis=0).astype(jnp.float32)
        table_gradient = table_gradient + (
            jnp.einsum("md,mv->dv", narrow, softmax, preferred_element_type=jnp.float32).T
        )
        table_gradient = table_gradient.at[wanted].add(-states.astype(jnp.float32))
        return (
            entropy + jnp.sum(log_z - picked),
            squares + jnp.sum(jnp.square(log_z)),
            table_gradient,
        ), state_gradient.astype(states.dtype)

    zero = jnp.zeros((), jnp.float32)
    (entropy, squares, table_gradient), state_gradient = jax.lax.scan(
        visit,
        (zero, zero, jnp.zeros(table.shape, jnp.float32)),
        (hidden.reshape(-1, chunk, hidden.shape[1]), targets.reshape(-1, chunk)),
    )
    gradients = (state_gradient.reshape(hidden.shape), table_gradient.astype(table.dtype))
    return (entropy, squares), gradients


def _backward(
    z_weight: float, saved: tuple[jax.Array, jax.Array], gradients: Sums
) -> tuple[jax.Array, jax.Array, None]:
    del z_weight
    state_gradient, table_gradient = saved
    scaled = [each * gradients[0].astype(each.dtype) for each in (state_gradient, table_gradient)]
    return scaled[0], scaled[1], None


cross_entropy_sums.defvjp(_forward, _backward)
