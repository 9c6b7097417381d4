"""The PaLM decoder (arXiv 2204.02311) as a Flax module and as pure functions on parameters.

Training and parity tests use `forward`; serving uses `forward_step`, which reads and writes a
key/value cache. Both run the same blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from model.activations import place
from model.attention import attend_causally
from model.config import PaLMConfig
from model.kv_cache import KeyValues, KVCache, attend_and_store, init_cache
from model.layers import Block, Norm
from model.own_pages import on_one_chips_pages, on_own_pages
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

Angles: TypeAlias = tuple[jax.Array, jax.Array]
"""RoPE's cosine and sine."""

RunBlock: TypeAlias = Callable[[int, Block, jax.Array, Angles], jax.Array]
"""Takes a layer's number, its block, its input [B, T, D] and the angles; returns its output."""


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
        tokens, positions, lambda _, block, x, angles: block(x, angles, attend_causally)
    )


def unembed(config: PaLMConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """float32[..., V] logits of final-normed hidden states [..., D]."""
    model: PaLM = bind(config, params)
    return model.logits(hidden)


def forward(config: PaLMConfig, params: Params, tokens: jax.Array) -> jax.Array:
    """float32[B, T, V] logits of whole sequences, int32[B, T]; position t sees tokens ≤ t."""
    return unembed(config, params, forward_hidden(config, params, tokens))


def forward_step(
    config: PaLMConfig,
    params: Params,
    tokens: jax.Array,
    start: jax.Array,
    cache: KVCache,
    pages: jax.Array,
) -> tuple[jax.Array, KVCache]:
    """Run new tokens against the cache and remember them in it.

    Row b's tokens take positions start[b] … start[b]+T-1; their keys and values are written to the
    row's pages there, and they attend to every position up to their own.

    Args:
        config: The model's shape.
        params: Its parameters.
        tokens: int32[B, T].
        start: int32[B]; a multiple of the page size if T is one.
        cache: As from `init_cache`; donate it, so that it is updated in place.
        pages: int32[B, P]; the pages of each row, see `model.kv_cache`. They hold at least
            start + T positions of every row whose output is used. Under a layout they count from
            the first page of the row's chip, see `model.own_pages.on_own_pages`. Or
            int32[1, chips, P]: those of a single row on one of the chips, see
            `model.own_pages.on_one_chips_pages`.

    Returns:
        Final-normed hidden states [B, T, D], and the cache.
    """
    positions = start[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    updated: KVCache = []

    def run_block(layer: int, block: Block, x: jax.Array, angles: Angles) -> jax.Array:
        definition, state = nnx.split(block)
        x, stored = _cached_block(definition, state, x, angles, cache[layer], pages, start)
        updated.append(stored)
        return x

    model: PaLM = bind(config, params)
    return model.hidden(tokens, positions, run_block), updated


# Compiled into the caller's program. On its own, JAX traces and lowers it once for all layers,
# which is most of what a warm start of a server waits for.
@functools.partial(jax.jit, static_argnames=("definition",))
def _cached_block(
    definition: nnx.GraphDef[Block],
    state: nnx.State[Any, Any],
    x: jax.Array,
    angles: Angles,
    cache: KeyValues,
    pages: jax.Array,
    start: jax.Array,
) -> tuple[jax.Array, KeyValues]:
    """One block on [B, T, D] against its layer's cache; arguments as in `forward_step`."""
    stored = cache

    def attend(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        nonlocal stored
        new = (query, keys, values)
        if pages.ndim == 3:
            mixed, stored = on_one_chips_pages(new, cache, pages[0], start)
        else:
            mixed, stored = on_own_pages(attend_and_store, new, cache, pages, start)
        return mixed

    block: Block = nnx.merge(definition, state)
    return block(x, angles, attend), stored
