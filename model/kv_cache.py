"""The key/value cache: pages of a few tokens each, found through a table.

A page belongs to no place in a sequence. Row b of a step holds its position p in page
`pages[b, p // page_size]`, at offset `p % page_size`; several rows may read one page, and which
page a row uses changes nothing of what it computes. Table entries past what a row has may name any
page, conventionally `SCRATCH_PAGE`, which belongs to nobody.

An int8 cache has a scale for every token's head, kept with it: H int8 and behind them, as 4 more,
the bytes of the float32 that they are to be multiplied by. So a page is one piece of memory in
every dtype, and the kernels read the scale with what it scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp

from model.attention import attend
from model.kernels import POOL_SCALE_BYTES

if TYPE_CHECKING:
    from jax.typing import DTypeLike

    from model.config import PaLMConfig

KeyValues: TypeAlias = tuple[jax.Array, jax.Array]
"""Keys and values of a layer, each [pages, page_size, K, H]; in int8, [pages, page_size, K, H + 4].
"""

KVCache: TypeAlias = list[KeyValues]
"""One pair for each layer; donate it, so that it is updated in place."""

SCRATCH_PAGE = 0
"""Written by padding, read by nobody."""

_LARGEST_INT8 = 127
# Heads whose magnitudes are all below this become 0: their scale would not be a normal number.
_SMALLEST_PEAK = 1e-30

# Beyond this many tokens one scatter compiles faster than a chain of in-place slice updates.
_MAX_UNROLLED_TOKENS = 64


def init_cache(
    config: PaLMConfig, num_pages: int, page_size: int, dtype: DTypeLike = jnp.float32
) -> KVCache:
    """An empty cache in float32, bfloat16 or int8: per layer the `KeyValues` of num_pages."""
    width = config.head_dim + (POOL_SCALE_BYTES if jnp.dtype(dtype) == jnp.int8 else 0)
    shape = (num_pages, page_size, config.num_kv_heads, width)
    return [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers)]


def quantize_heads(values: jax.Array) -> jax.Array:
    """What an int8 cache keeps of heads [..., H]: int8[..., H + 4].

    Symmetric: q = round(x · (127 / absmax)), ties to even, with the scale absmax / 127. A head with
    an infinity or a NaN becomes NaN throughout.
    """
    exact = values.astype(jnp.float32)
    peak = jnp.max(jnp.abs(exact), axis=-1, keepdims=True)
    is_zero = peak < _SMALLEST_PEAK
    is_finite = jnp.isfinite(peak)
    inverse = jnp.where(is_zero | ~is_finite, 0.0, _LARGEST_INT8 / jnp.where(is_zero, 1.0, peak))
    whole = jnp.where(is_finite, jnp.round(exact * inverse), 0.0).astype(jnp.int8)
    scale = jnp.where(is_finite, jnp.where(is_zero, 0.0, peak / _LARGEST_INT8), jnp.nan)
    return jnp.concatenate([whole, jax.lax.bitcast_convert_type(scale, jnp.int8)[..., 0, :]], -1)


def dequantize_heads(stored: jax.Array) -> jax.Array:
    """float32[..., H] of what `quantize_heads` gave, int8[..., H + 4]."""
    whole, scale = stored[..., :-POOL_SCALE_BYTES], stored[..., -POOL_SCALE_BYTES:]
    factor = jax.lax.bitcast_convert_type(scale, jnp.float32)
    return whole.astype(jnp.float32) * factor[..., None]


def write_pages(pool: jax.Array, new: jax.Array, pages: jax.Array, start: jax.Array) -> jax.Array:
    """Put new keys or values into their pages.

    Args:
        pool: [pages, page_size, K, H], or int8[pages, page_size, K, H + 4].
        new: [B, T, K, H]; row b's tokens stand at positions start[b] … start[b]+T-1.
        pages: int32[B, P], the rows' tables.
        start: int32[B]; a multiple of page_size if T is.

    Returns:
        The pool with them in it.
    """
    new = quantize_heads(new) if pool.dtype == jnp.int8 else new.astype(pool.dtype)
    batch, length = new.shape[:2]
    page_size = pool.shape[1]
    zero = jnp.zeros((), jnp.int32)
    if length % page_size == 0:
        count = length // page_size
        indices = (start // page_size)[:, None] + jnp.arange(count, dtype=jnp.int32)[None]
        page = _entries(pages, indices)
        for row in range(batch):
            for index in range(count):
                piece = new[row, index * page_size : (index + 1) * page_size]
                at = (page[row, index], zero, zero, zero)
                pool = jax.lax.dynamic_update_slice(pool, piece[None], at)
        return pool
    positions = start[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    page = _entries(pages, positions // page_size)
    offset = positions % page_size
    if batch * length > _MAX_UNROLLED_TOKENS:
        return pool.at[page, offset].set(new)
    for row in range(batch):
        for token in range(length):
            at = (page[row, token], offset[row, token], zero, zero)
            pool = jax.lax.dynamic_update_slice(pool, new[row, token][None, None], at)
    return pool


def read_pages(pool: jax.Array, pages: jax.Array) -> jax.Array:
    """What the tables name, in order: [B, P * page_size, K, H], of an int8 pool in float32."""
    taken = jnp.take(pool, pages, axis=0, mode="clip")
    found = taken.reshape(pages.shape[0], -1, *pool.shape[2:])
    return dequantize_heads(found) if pool.dtype == jnp.int8 else found


def attend_pages(
    query: jax.Array, cache: KeyValues, pages: jax.Array, start: jax.Array
) -> jax.Array:
    """Causal attention of [B, T, N, H] queries at positions start[b] … over their rows' pages."""
    keys, values = (read_pages(pool, pages) for pool in cache)
    return attend_in_place(query, keys, values, start)


def attend_in_place(
    query: jax.Array, keys: jax.Array, values: jax.Array, start: jax.Array
) -> jax.Array:
    """Causal attention of [B, T, N, H] queries at positions start[b] … over what `read_pages` gave.

    Keys and values are [B, S, K, H] from position 0 on.
    """
    length = query.shape[1]
    at = jnp.arange(keys.shape[1], dtype=jnp.int32)[None]
    positions = start[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    mask = positions[:, :, None] >= at[:, None]
    # Pages keep what their last owner left. A weight of 0 hides any number, but 0 · NaN is NaN.
    is_own = at < start[:, None] + length
    values = jnp.where(is_own[:, :, None, None], values, jnp.zeros((), values.dtype))
    return attend(query, keys.astype(query.dtype), values.astype(query.dtype), mask)


def attend_and_store(
    new: tuple[jax.Array, jax.Array, jax.Array],
    cache: KeyValues,
    pages: jax.Array,
    start: jax.Array,
) -> tuple[jax.Array, KeyValues]:
    """Put new keys and values into their pages, and attend to all that the rows then have.

    Args:
        new: Scaled queries [B, T, N, H], keys and values [B, T, K, H].
        cache: A layer's.
        pages: int32[B, P], the rows' tables.
        start: int32[B], as in `write_pages`.

    Returns:
        The queries' attention [B, T, N, H], and the cache.
    """
    query, keys, values = new
    stored = (
        write_pages(cache[0], keys, pages, start),
        write_pages(cache[1], values, pages, start),
    )
    return attend_pages(query, stored, pages, start), stored


def _entries(pages: jax.Array, indices: jax.Array) -> jax.Array:
    """int32[B, n]; past a table's end, which only padding can reach, the scratch page."""
    found = jnp.take_along_axis(pages, indices, axis=1, mode="clip")
    return jnp.where(indices < pages.shape[1], found, SCRATCH_PAGE)
