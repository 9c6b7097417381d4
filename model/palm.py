"""The PaLM decoder (arXiv 2204.02311) as a Flax module and as pure functions on parameters.

Training and parity tests use `forward`; serving uses `forward_step`, which reads and writes a
key/value cache. Both run the same blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from model.activations import place, write_own_rows
from model.config import PaLMConfig
from model.layers import Block, KeyValues, Norm
from model.parameters import (
    UNIT_NORMAL,
    Params,
    abstract_parameters,
    bind,
    declare,
    declare_parameters,
    fan_in,
    init_parameters,
)
from model.rope import rotary_angles

if TYPE_CHECKING:
    from jax.typing import DTypeLike

__all__ = [
    "KVCache",
    "PaLM",
    "Params",
    "abstract_parameters",
    "declare_parameters",
    "forward",
    "forward_hidden",
    "forward_step",
    "init_cache",
    "init_parameters",
    "unembed",
]

KVCache: TypeAlias = list[KeyValues]
"""A pair of keys and values for each layer, each [slots, S, K, H]."""

Angles: TypeAlias = tuple[jax.Array, jax.Array]
"""RoPE's cosine and sine."""

RunBlock: TypeAlias = Callable[[int, Block, jax.Array, Angles], jax.Array]
"""Takes a layer's number, its block, its input [B, T, D] and the angles; returns its output."""

# Beyond this many rows one scatter compiles faster than a chain of in-place slice updates.
_MAX_UNROLLED_ROWS = 64


class PaLM(nnx.Module):
    """Embedding, L parallel blocks, final norm and (tied) output head."""

    def __init__(self, config: PaLMConfig, rngs: nnx.Rngs | None = None) -> None:
        """Declare every parameter of `config`; abstract (no memory) without `rngs`."""
        self.config = config
        table = (config.vocab_size, config.d_model)
        self.embedding = declare(rngs, table, ("vocab", "model"), UNIT_NORMAL)
        self.layers = nnx.List([Block(config, rngs) for _ in range(config.num_layers)])
        self.final_norm = Norm(config, rngs)
        self.head = (
            None
            if config.tied_embeddings
            else declare(rngs, table, ("vocab", "model"), fan_in(config.d_model))
        )

    def hidden(self, tokens: jax.Array, positions: jax.Array, run_block: RunBlock) -> jax.Array:
        """Final-normed hidden states.

        Args:
            tokens: int32[B, T].
            positions: int32[B or 1, T].
            run_block: Applies each block in turn.

        Returns:
            [B, T, D] in the parameters' dtype.
        """
        x = jnp.take(self.embedding[...], tokens, axis=0)
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        angles = (
            place(cos, "batch", "length", "head_dim"),
            place(sin, "batch", "length", "head_dim"),
        )
        for layer, block in enumerate(self.layers):
            x = run_block(layer, block, x, angles)
        return self.final_norm(x)

    def output_table(self) -> jax.Array:
        """The [V, D] matrix that scores tokens: the embedding, where it is tied."""
        table: jax.Array = self.embedding[...] if self.head is None else self.head[...]
        return table

    def logits(self, hidden: jax.Array) -> jax.Array:
        """float32[..., V] from [..., D]."""
        # The scale goes on the D-wide side: a pass over [..., V] costs as much as the product.
        scaled = hidden * jnp.asarray(self.config.resolved_logit_scale, hidden.dtype)
        scores: jax.Array = jnp.einsum(
            "...d,vd->...v", scaled, self.output_table(), preferred_element_type=jnp.float32
        )
        return scores


def forward_hidden(config: PaLMConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """Final-normed hidden states [B, T, D] of whole sequences, int32[B, T], without a cache."""
    length = tokens.shape[1]
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    model: PaLM = bind(config, params)
    return model.hidden(
        tokens, positions, lambda _, block, x, angles: block(x, angles, None, _keep_new)
    )


def unembed(config: PaLMConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """float32[..., V] logits of final-normed hidden states [..., D]."""
    model: PaLM = bind(config, params)
    return model.logits(hidden)


def forward(config: PaLMConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """float32[B, T, V] logits of whole sequences, int32[B, T]; position t sees tokens ≤ t."""
    return unembed(config, params, forward_hidden(config, params, tokens))


def init_cache(
    config: PaLMConfig, num_slots: int, max_len: int, dtype: DTypeLike = jnp.float32
) -> KVCache:
    """An empty cache: per layer keys and values of [num_slots, max_len, K, H]."""
    shape = (num_slots, max_len, config.num_kv_heads, config.head_dim)
    return [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers)]


def forward_step(
    config: PaLMConfig,
    params: Params,
    tokens: jax.Array,
    start: jax.Array,
    cache: KVCache,
    *,
    key_len: int,
    rows: jax.Array | None = None,
) -> tuple[jax.Array, KVCache]:
    """Run new tokens against the cache and remember them in it.

    Row b's tokens take positions start[b] … start[b]+T-1; their keys and values are written there,
    and they attend to every position up to their own among the first `key_len`.

    Args:
        config: The model's shape.
        params: Its parameters.
        tokens: int32[B, T].
        start: int32[B]; start + T must not pass the cache's length, nor `key_len` for a row
            whose output is used.
        cache: As from `init_cache`; donate it, so that it is updated in place.
        key_len: How many cache positions are read (static).
        rows: int32[B], the cache slot of each row; None means row b is slot b (B == slots).

    Returns:
        Final-normed hidden states [B, T, D], and the cache.
    """
    length = tokens.shape[1]
    positions = start[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    mask = positions[:, :, None] >= jnp.arange(key_len, dtype=jnp.int32)[None, None]
    updated: KVCache = []

    def run_block(layer: int, block: Block, x: jax.Array, angles: Angles) -> jax.Array:
        definition, state = nnx.split(block)
        x, stored = _cached_block(
            definition, state, x, angles, mask, cache[layer], start, rows, key_len=key_len
        )
        updated.append(stored)
        return x

    model: PaLM = bind(config, params)
    return model.hidden(tokens, positions, run_block), updated


# Compiled into the caller's program. On its own, JAX traces and lowers it once for all layers,
# which is most of what a warm start of a server waits for.
@functools.partial(jax.jit, static_argnames=("definition", "key_len"))
def _cached_block(
    definition: nnx.GraphDef[Block],
    state: nnx.State[Any, Any],
    x: jax.Array,
    angles: Angles,
    mask: jax.Array,
    cache: KeyValues,
    start: jax.Array,
    rows: jax.Array | None,
    *,
    key_len: int,
) -> tuple[jax.Array, KeyValues]:
    """One block on [B, T, D] against its layer's cache; arguments as in `forward_step`."""
    stored = cache

    def remember(keys: jax.Array, values: jax.Array) -> KeyValues:
        nonlocal stored
        stored = (
            write_own_rows(_write, cache[0], keys, start, rows),
            write_own_rows(_write, cache[1], values, start, rows),
        )
        return _read(stored[0], key_len, rows), _read(stored[1], key_len, rows)

    block: Block = nnx.merge(definition, state)
    return block(x, angles, mask, remember), stored


def _keep_new(keys: jax.Array, values: jax.Array) -> KeyValues:
    return keys, values


def _write(
    buffer: jax.Array, new: jax.Array, start: jax.Array, rows: jax.Array | None
) -> jax.Array:
    """Write new [B, T, K, H] into buffer [slots, S, K, H] at each row's start."""
    new = new.astype(buffer.dtype)
    batch, length = new.shape[:2]
    slots = jnp.arange(batch, dtype=jnp.int32) if rows is None else rows
    if batch > _MAX_UNROLLED_ROWS:
        offsets = start[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
        return buffer.at[slots[:, None], offsets].set(new)
    zero = jnp.zeros((), jnp.int32)
    for row in range(batch):
        index = (slots[row], start[row], zero, zero)
        buffer = jax.lax.dynamic_update_slice(buffer, new[row : row + 1], index)
    return buffer


def _read(buffer: jax.Array, key_len: int, rows: jax.Array | None) -> jax.Array:
    """The first `key_len` positions of each row's slot, [B, key_len, K, H]."""
    if rows is None:
        return buffer[:, :key_len]
    if rows.shape[0] == 1:
        size = (1, key_len, *buffer.shape[2:])
        zero = jnp.zeros((), jnp.int32)
        return jax.lax.dynamic_slice(buffer, (rows[0], zero, zero, zero), size)
    return buffer[rows, :key_len]
