"""Attention of query heads over shared key/value heads, masked or causal.

Letters as in `model.layers`. Both functions merge the T queries and the G query heads of a
key/value head into one axis, so that multi-query attention is two plain matrix products.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# Queries are taken in blocks of this many, each against the keys up to its own end: half of the
# products, and scores that stay in the cache. On a CPU, 64 to 128 were the fastest.
_CAUSAL_BLOCK = 128

# Keys are taken in blocks of this many, and what the blocks give is added up in order. So blocks
# past the last that counts add nothing but zeros: a query's attention is the same bits however many
# keys are read beside its own, though the order in which the library sums is not.
_KEY_BLOCK = 256

# A finite floor, not -inf: a query row that is all masked must not become NaN.
_MASKED = -1e30


def attend(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention under a mask.

    Args:
        query: [B, T, N, H], already scaled.
        keys: [B, S, K, H].
        values: [B, S, K, H].
        mask: bool[B or 1, T, S]; True where a query may see a key.

    Returns:
        [B, T, N, H] in the dtype of `query`; scores and softmax are float32.
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = keys.shape[2]
    group = heads // kv_heads
    # Heads outside queries: the heads stay split over devices when both become one axis.
    merged = jnp.moveaxis(query, 2, 1).reshape(batch, kv_heads, group * length, head_dim)
    blocks = range(0, keys.shape[1], _KEY_BLOCK)
    scores = [_scores(merged, keys, mask, slice(start, start + _KEY_BLOCK)) for start in blocks]
    peak = functools.reduce(jnp.maximum, (jnp.max(s, axis=-1, keepdims=True) for s in scores))
    weights = [jnp.exp(block - peak) for block in scores]
    total = functools.reduce(jnp.add, (jnp.sum(w, axis=-1, keepdims=True) for w in weights))
    mixed = functools.reduce(
        jnp.add,
        (
            jnp.einsum(
                "bkxs,bskh->bkxh",
                block.astype(values.dtype),
                values[:, start : start + _KEY_BLOCK],
                preferred_element_type=jnp.float32,
            )
            for start, block in zip(blocks, weights, strict=True)
        ),
    )
    result = (mixed / total).astype(query.dtype)
    return jnp.moveaxis(result.reshape(batch, heads, length, head_dim), 1, 2)


def _scores(merged: jax.Array, keys: jax.Array, mask: jax.Array, part: slice) -> jax.Array:
    """float32[B, K, G * T, S'] of [B, K, G * T, H] queries with a part of the keys."""
    scores = jnp.einsum(
        "bkxh,bskh->bkxs", merged, keys[:, part], preferred_element_type=jnp.float32
    )
    shown = mask[:, None, None, :, part]
    by_query = scores.reshape(*scores.shape[:2], -1, *shown.shape[-2:])
    return jnp.where(shown, by_query, _MASKED).reshape(scores.shape)


def attend_causally(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention of T tokens to themselves and those before: `attend` with a triangular mask."""
    length = query.shape[1]
    blocks = []
    for start in range(0, length, _CAUSAL_BLOCK):
        end = min(length, start + _CAUSAL_BLOCK)
        mask = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None]
        blocks.append(attend(query[:, start:end], keys[:, :end], values[:, :end], mask[None]))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)
