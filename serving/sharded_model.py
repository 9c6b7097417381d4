"""A PaLM's functions for a mesh: what `serving.language_model` is for one device."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from model.activations import under_layout
from model.config import PaLMConfig
from model.kv_cache import KVCache
from model.palm import forward_step, init_cache, unembed
from serving.page_tables import RowsByChip
from serving.sharding import Sharding

if TYPE_CHECKING:
    from jax.typing import DTypeLike


@dataclasses.dataclass(frozen=True)
class ShardedPaLM:
    """The functions of `serving.language_model.LanguageModel` under a sharding's layouts.

    Attributes:
        config: The model's own shape.
        padded: Its shape as it lies on the mesh.
        sharding: How it is split.
    """

    config: PaLMConfig
    padded: PaLMConfig
    sharding: Sharding

    @classmethod
    def of(cls, config: PaLMConfig, sharding: Sharding) -> ShardedPaLM:
        """Of a model that is, or will be, placed as `sharding` says."""
        return cls(config, sharding.placement.pad(config), sharding)

    def init_cache(self, num_pages: int, page_size: int, dtype: DTypeLike) -> KVCache:
        """An empty cache; each device makes its own part."""
        make = functools.partial(init_cache, self.padded, num_pages, page_size, dtype)
        cache: KVCache = jax.jit(make, out_shardings=self.sharding.cache)()
        return cache

    def forward_step(
        self,
        params: Any,
        tokens: jax.Array,
        start: jax.Array,
        cache: KVCache,
        pages: jax.Array | RowsByChip,
    ) -> tuple[jax.Array, KVCache]:
        """`model.palm.forward_step`.

        Where chips have pages of their own, a decode step's rows are taken in the order of the
        chips, and the hidden states come back in the order of the rows.
        """
        mesh = self.sharding.mesh
        if isinstance(pages, RowsByChip):
            by_chip, tables = (tokens[pages.rows], start[pages.rows]), jnp.asarray(pages.tables)
            with under_layout(self.sharding.decode, mesh):
                hidden, cache = forward_step(self.padded, params, *by_chip, cache, tables)
            return hidden[pages.places], cache
        # By heads both layouts are one.
        with under_layout(self.sharding.prefill, mesh):
            return forward_step(self.padded, params, tokens, start, cache, pages)

    def unembed(self, params: Any, hidden: jax.Array) -> jax.Array:
        """float32[M, V] logits of [M, D], padding cut off.

        Each device computes its part of the vocabulary for every row. One all-to-all then gives it
        whole rows, as far as M can be split, so that it receives about 4·M·V / n bytes and samples
        M / n rows; gathered, it would be 4·M·V bytes and every device would sample every row.
        """
        with under_layout(self.sharding.decode, self.sharding.mesh):
            logits = unembed(self.padded, params, hidden)
        by_row = self.sharding.by_row(hidden.shape[0])
        whole_rows: jax.Array = jax.lax.with_sharding_constraint(logits, by_row)
        return whole_rows[:, : self.config.vocab_size]
