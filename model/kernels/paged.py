"""Attention over keys and values in pages, and writing them there.

A pool holds pages of `page_size` positions for all requests. A row of the table lists a request's
pages in the order of positions; entries that it does not have yet are negative.

A pool keeps float32, bfloat16, or int8 with a scale for every token's head: H int8 and behind them,
as 4 more, the bytes of the float32 that they are to be multiplied by.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from model.kernels.native import resolve_isa

POOL_SCALE_BYTES = 4
"""What an int8 pool has behind the elements of every head; `src/pool_format.h` has the same."""

_POOL_DTYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.int8))


def paged_attention(
    query: jax.Array,
    key_pages: jax.Array,
    value_pages: jax.Array,
    table: jax.Array,
    start: jax.Array,
    *,
    isa: str | None = None,
) -> jax.Array:
    """Causal attention of new tokens to their request's pages, their own keys included.

    Token t of row b stands at position start[b] + t and sees every position up to its own. It sees
    none from the first entry of its row of the table that names no page; a token that sees nothing
    gives 0. Scores, softmax and mixture are float32. No more keys are read than the tokens see.

    A row's result has the same bits whatever the other rows, their number, the table's width, the
    number of threads and the number of tokens in the call are. Levels of instructions differ in the
    last bits.

    Args:
        query: float32[B, T, N, H], already scaled.
        key_pages: float32 or bfloat16[num_pages, page_size, K, H], or int8[…, H + 4]; N is a
            multiple of K.
        value_pages: Like `key_pages`.
        table: int32[B, pages].
        start: int32[B].
        isa: The level of instructions, one of `ISAS`; None for the best.

    Returns:
        float32[B, T, N, H].

    Raises:
        KernelsUnavailableError: There are no kernels here.
        TypeError: An argument has another dtype.
        ValueError: The shapes do not fit together, or `isa` is unknown.
    """
    level = resolve_isa(isa)
    _check_float32("query", query)
    _check_pools(key_pages, value_pages)
    _check_placement(query, table, start)
    heads, head_dim = query.shape[2:]
    kv_heads = key_pages.shape[2]
    if _head_dim(key_pages) != head_dim:
        raise ValueError(
            f"query has head_dim={head_dim}, key_pages has head_dim={_head_dim(key_pages)}"
        )
    if kv_heads == 0 or heads % kv_heads != 0:
        raise ValueError(f"query has {heads} heads, not a multiple of key_pages' {kv_heads}")
    call = jax.ffi.ffi_call(
        "talipot_paged_attention", jax.ShapeDtypeStruct(query.shape, jnp.float32)
    )
    result: jax.Array = call(query, key_pages, value_pages, table, start, isa=np.int32(level))
    return result


def write_pages(
    key_pages: jax.Array,
    value_pages: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    table: jax.Array,
    start: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Store new tokens' keys and values in their pages.

    Token t of row b goes to position start[b] + t: slot `position % page_size` of the page
    table[b, position // page_size]. A token whose entry is negative, or beyond the table or the
    pool, is not stored. Two rows must not name the same slot.

    Donate the pools to the jitted function that calls this, and they are updated in place; without
    that XLA copies them first. bfloat16 pools take values rounded to nearest, ties to even. int8
    pools take a head's q = round(x · (127 / absmax)), ties to even, and absmax / 127; a head with
    an infinity or a NaN becomes NaN throughout.

    Args:
        key_pages: float32 or bfloat16[num_pages, page_size, K, H], or int8[…, H + 4].
        value_pages: Like `key_pages`.
        keys: float32[B, T, K, H].
        values: Like `keys`.
        table: int32[B, pages].
        start: int32[B].

    Returns:
        The two pools.

    Raises:
        KernelsUnavailableError: There are no kernels here.
        TypeError: An argument has another dtype.
        ValueError: The shapes do not fit together.
    """
    resolve_isa(None)
    _check_pools(key_pages, value_pages)
    _check_float32("keys", keys)
    _check_float32("values", values)
    if keys.shape != values.shape:
        raise ValueError(f"keys has shape {keys.shape}, values {values.shape}")
    expected = [key_pages.shape[2], _head_dim(key_pages)]
    if list(keys.shape[2:]) != expected:
        raise ValueError(f"keys has [K, H]={list(keys.shape[2:])}, key_pages {expected}")
    _check_placement(keys, table, start)
    pool = jax.ShapeDtypeStruct(key_pages.shape, key_pages.dtype)
    call = jax.ffi.ffi_call("talipot_write_pages", (pool, pool), input_output_aliases={0: 0, 1: 1})
    new_keys, new_values = call(key_pages, value_pages, keys, values, table, start)
    return new_keys, new_values


def _check_float32(name: str, array: jax.Array) -> None:
    if array.dtype != jnp.float32:
        raise TypeError(f"{name} is {array.dtype}, not float32")
    if array.ndim != 4:
        raise ValueError(f"{name} has shape {array.shape}, not 4 axes")


def _check_pools(key_pages: jax.Array, value_pages: jax.Array) -> None:
    for name, pool in (("key_pages", key_pages), ("value_pages", value_pages)):
        if pool.dtype not in _POOL_DTYPES:
            raise TypeError(f"{name} is {pool.dtype}, not float32, bfloat16 or int8")
        if pool.ndim != 4:
            raise ValueError(f"{name} has shape {pool.shape}, not 4 axes")
        if pool.shape[1] == 0:
            raise ValueError(f"{name} has shape {pool.shape}, in which a page has no positions")
    if value_pages.dtype != key_pages.dtype:
        raise TypeError(f"value_pages is {value_pages.dtype}, key_pages {key_pages.dtype}")
    if value_pages.shape != key_pages.shape:
        raise ValueError(f"value_pages has shape {value_pages.shape}, key_pages {key_pages.shape}")


def _head_dim(pool: jax.Array) -> int:
    return pool.shape[3] - (POOL_SCALE_BYTES if pool.dtype == jnp.int8 else 0)


def _check_placement(rows: jax.Array, table: jax.Array, start: jax.Array) -> None:
    for name, array, ndim in (("table", table, 2), ("start", start, 1)):
        if array.dtype != jnp.int32:
            raise TypeError(f"{name} is {array.dtype}, not int32")
        if array.ndim != ndim or array.shape[0] != rows.shape[0]:
            raise ValueError(
                f"{name} has shape {array.shape}, not {ndim} axes of which the first is"
                f" {rows.shape[0]} rows"
            )
