"""A model's parallel blocks in one call.

Between the two products of a block there is little work on each row, and as a program of its own
operations it would be done by one thread, with the others woken for every product. Here the threads
stay together from the first block's norm to the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from model.kernels.native import resolve_isa

_OPERANDS = 10
"""Of a block, the two pools last; `src/block_handlers.cpp` has the same order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """One block's weights. N query heads, K key/value heads of H, D model, F feed-forward.

    Attributes:
        norm_scale: float32[D].
        norm_bias: float32[D], or None.
        query_norm: float32[N, H], or None where queries pass no norm; likewise `key_norm`.
        key_norm: float32[K, H].
        into: [D, (N + 2 K) H + 2 F] as packed by `pack_int8`, `pack_bf16` or `pack_f32`: query,
            key, value, gate and up; without a gate F fewer.
        into_scale: float32 of its columns for int8; else None.
        out: [N H + F, D], likewise: attention's output above the feed-forward layer's.
        out_scale: float32[D], likewise.
    """

    norm_scale: jax.Array
    norm_bias: jax.Array | None
    query_norm: jax.Array | None
    key_norm: jax.Array | None
    into: jax.Array
    into_scale: jax.Array | None
    out: jax.Array
    out_scale: jax.Array | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockForm:
    """What all blocks have in common.

    Attributes:
        num_heads: N.
        d_ff: F.
        is_gated: Whether the feed-forward layer has a gate.
        is_gelu: Whether its activation is the exact gelu; else silu.
        has_half_pairs: Whether rotated pairs are (i, i + H/2); else (2i, 2i + 1).
        norm_eps: Added to the variance in norms.
    """

    num_heads: int
    d_ff: int
    is_gated: bool
    is_gelu: bool
    has_half_pairs: bool
    norm_eps: float


def rotary_turns(angles: tuple[jax.Array, jax.Array], *, has_half_pairs: bool) -> jax.Array:
    """What `run_blocks` rotates by.

    Args:
        angles: Cosine and sine, each float32[positions, H/2].
        has_half_pairs: As in `BlockForm`.

    Returns:
        float32[positions, 2, H]: for each element its cosine, and the sine that its partner is
        multiplied by.
    """
    cos, sin = angles
    if has_half_pairs:
        turns = (jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1))
    else:
        both = (jnp.stack([cos, cos], axis=-1), jnp.stack([-sin, sin], axis=-1))
        turns = (both[0].reshape(cos.shape[0], -1), both[1].reshape(cos.shape[0], -1))
    return jnp.stack(turns, axis=1)


def run_blocks(
    x: jax.Array,
    blocks: Sequence[BlockWeights],
    pools: Sequence[tuple[jax.Array, jax.Array]],
    last_norm: tuple[jax.Array, jax.Array | None],
    turns: jax.Array,
    table: jax.Array,
    start: jax.Array,
    *,
    form: BlockForm,
    isa: str | None = None,
) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """Every block in turn, then a norm: `y = x + out(attend(into(LN(x))), silu(gate) * up)`.

    Positions, pages and their bounds are those of `write_pages` and `paged_attention`, products
    those of `int8_matmul`, `bf16_matmul` or `f32_matmul`. A row's result has the same bits whatever
    the other rows, their number, how its tokens were cut and the number of threads are; levels of
    instructions differ in the last bits. Donate the pools, and they are updated in place.

    Args:
        x: float32[B, T, D].
        blocks: At least one; all have weights of the same form.
        pools: A pair of keys and values for each block, as in `write_pages`.
        last_norm: Scale and bias (or None), float32[D].
        turns: float32[positions, 2, H] of `rotary_turns`; positions beyond take the last.
        table: int32[B, pages].
        start: int32[B].
        form: What the blocks have in common.
        isa: The level of instructions, one of `ISAS`; None for the best.

    Returns:
        float32[B, T, D], and the pools.

    Raises:
        KernelsUnavailableError: There are no kernels here.
        ValueError: There is not a pair of pools for each of the blocks, or `isa` is unknown.
    """
    level = resolve_isa(isa)
    if not blocks or len(blocks) != len(pools):
        raise ValueError(
            f"{len(blocks)} blocks must be at least 1 and have as many pools, not {len(pools)}"
        )
    operands: list[jax.Array] = []
    aliases: dict[int, int] = {}
    shared = (x, turns, table, start, last_norm[0], _or_empty(last_norm[1]))
    for index, (block, pair) in enumerate(zip(blocks, pools, strict=True)):
        weights = [getattr(block, field.name) for field in dataclasses.fields(block)]
        operands += [*map(_or_empty, weights), *pair]
        first = len(shared) + len(operands) - len(pair)
        aliases |= {first: 1 + 2 * index, first + 1: 2 + 2 * index}
    results = [jax.ShapeDtypeStruct(pool.shape, pool.dtype) for pair in pools for pool in pair]
    call = jax.ffi.ffi_call(
        "talipot_blocks",
        (jax.ShapeDtypeStruct(x.shape, jnp.float32), *results),
        input_output_aliases=aliases,
    )
    y, *updated = call(
        *shared,
        *operands,
        isa=np.int32(level),
        heads=np.int32(form.num_heads),
        d_ff=np.int32(form.d_ff),
        is_gated=np.bool_(form.is_gated),
        is_gelu=np.bool_(form.is_gelu),
        has_half_pairs=np.bool_(form.has_half_pairs),
        norm_eps=np.float32(form.norm_eps),
    )
    return y, list(zip(updated[::2], updated[1::2], strict=True))


def _or_empty(array: jax.Array | None) -> jax.Array:
    return jnp.zeros(0, jnp.float32) if array is None else array
