"""Attention of query heads over shared key/value heads, masked or causal.

Letters as in `model.layers`. Both functions merge the T queries and the G query heads of a
key/value head into one axis, so that multi-query attention is two plain matrix products.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Queries are taken in blocks of this many, each against the keys up to its own end: half of the
# products, and scores that stay in the cache. On a CPU, 64 to 128 were the fastest.
_CAUSAL_BLOCK = 128

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
    scores = jnp.einsum("bkxh,bskh->bkxs", merged, keys, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, group, length, -1)
    scores = jnp.where(mask[:, None, None], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    weights = weights.reshape(batch, kv_heads, group * length, -1)
    mixed = jnp.einsum("bkxs,bskh->bkxh", weights, values)
    return jnp.moveaxis(mixed.reshape(batch, heads, length, head_dim), 1, 2)


def attend_causally(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention of T tokens to themselves and those before: `attend` with a triangular mask."""
    length = query.shape[1]
    blocks = []
    for start in range(0, length, _CAUSAL_BLOCK):
        end = min(length, start + _CAUSAL_BLOCK)
        mask = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None]
        blocks.append(attend(query[:, start:end], keys[:, :end], values[:, :end], mask[None]))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)
