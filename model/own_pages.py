"""Attention where every chip has a pool of pages of its own, so that pages cause no communication.

By batch, a step's rows are split over the chips and each row's pages lie on its own chip
(`on_own_pages`). A step of one row cannot be split: its pages are read where they lie, given to
all chips, and attended to by heads (`on_one_chips_pages`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from model.activations import layout_in_force
from model.errors import ConfigError
from model.kv_cache import SCRATCH_PAGE, KeyValues, attend_in_place, read_pages, write_pages
from model.layout_rules import Layout, activation_rules, dividing

NewTokens: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""Queries [B, T, N, H], keys and values [B, T, K, H]."""

AttendPages: TypeAlias = Callable[
    [NewTokens, KeyValues, jax.Array, jax.Array], tuple[jax.Array, KeyValues]
]
"""Takes new tokens, a layer's cache, tables and first positions; returns [B, T, N, H] and the
cache."""


def page_axes(layout: Layout) -> tuple[str, ...]:
    """The mesh axes that pools are split over, in order, where attention is by batch."""
    by_batch = dataclasses.replace(layout, attention="batch")
    return activation_rules(by_batch)["attention_batch"]


def on_own_pages(
    attend: AttendPages, new: NewTokens, cache: KeyValues, pages: jax.Array, start: jax.Array
) -> tuple[jax.Array, KeyValues]:
    """`attend(new, cache, pages, start)`, on each chip for its own sequences and pages.

    Where the layout in force splits attention's batch over n chips, each has 1/n of the rows and
    1/n of the pages, a pool of its own: row b's table counts from the first page of the chip that
    has row b, and page 0 of every chip is its scratch page. So nothing is communicated. Left to
    itself, XLA would send every chip's new keys to every other, since it does not see whose pages a
    table names. Where the batch is not split, every chip has all pages and XLA needs no help.

    Args:
        attend: Writes new keys and values to their pages and attends, as `attend_and_store` of
            `model.kv_cache`.
        new: Queries [B, T, N, H], keys and values [B, T, K, H], from `into_attention`.
        cache: A layer's pools of keys and values, each [pages, page_size, K, H].
        pages: int32[B, P], the rows' tables.
        start: int32[B], the rows' first positions.

    Returns:
        Attention's output [B, T, N, H], and the cache.

    Raises:
        ConfigError: The pages cannot be shared out evenly.
    """
    in_force = layout_in_force()
    if in_force is None:
        return attend(new, cache, pages, start)
    layout, mesh = in_force
    batch = pages.shape[0]
    over = dividing(batch, activation_rules(layout)["attention_batch"], mesh.shape)
    chips = math.prod(mesh.shape[axis] for axis in over)
    if chips == 1:
        return attend(new, cache, pages, start)
    if cache[0].shape[0] % chips:
        raise ConfigError(
            f"num_pages={cache[0].shape[0]} must be a multiple of the {chips} chips that "
            f"layout {layout.name} splits a batch of {batch} over"
        )

    def attend_own(
        new: NewTokens, cache: KeyValues, pages: jax.Array, start: jax.Array
    ) -> tuple[jax.Array, KeyValues]:
        # Sliced here and not by its spec, which would split `start` for the whole program and
        # have XLA gather it again for the rotary angles.
        first = jax.lax.axis_index(over) * pages.shape[0]
        own_start = jax.lax.dynamic_slice_in_dim(start, first, pages.shape[0])
        return attend(new, cache, pages, own_start)

    own = PartitionSpec(over)
    # Over these axes alone: heads may be split over the others, which stays XLA's affair.
    run = jax.shard_map(
        attend_own,
        mesh=mesh,
        axis_names=set(over),
        in_specs=(own, own, own, PartitionSpec()),
        out_specs=own,
    )
    attended: tuple[jax.Array, KeyValues] = run(new, cache, pages, start)
    return attended


def on_one_chips_pages(
    new: NewTokens, cache: KeyValues, tables: jax.Array, start: jax.Array
) -> tuple[jax.Array, KeyValues]:
    """`attend_and_store` for one row whose pages are on one of the chips that have pools.

    Every chip writes the new keys and values to its own pool, all but the owner to their scratch
    page. The owner's pages are then summed with the other chips' zeros, which gives every chip the
    row's keys and values: 2·S·K·H numbers, for S positions read. Queries stay split over heads.

    Args:
        new: Queries [1, T, N, H], keys and values [1, T, K, H]; whole on every chip but for heads.
        cache: A layer's pools of keys and values, each [pages, page_size, K, H].
        tables: int32[chips, P], in the order of `page_axes`: the row's table in the owner's numbers
            at the owner's place, `SCRATCH_PAGE` throughout at the others.
        start: int32[1], the row's first position.

    Returns:
        The queries' attention [1, T, N, H], and the cache.

    Raises:
        ConfigError: There is no layout in force, or it has another number of chips.
    """
    in_force = layout_in_force()
    chips = 0 if in_force is None else in_force[1].size
    if in_force is None or tables.shape[0] != chips:
        raise ConfigError(f"tables of {tables.shape[0]} chips need a mesh of so many, not {chips}")
    layout, mesh = in_force
    over = page_axes(layout)

    def store_and_read(
        keys: jax.Array, values: jax.Array, cache: KeyValues, table: jax.Array, start: jax.Array
    ) -> tuple[KeyValues, KeyValues]:
        stored = (
            write_pages(cache[0], keys, table, start),
            write_pages(cache[1], values, table, start),
        )
        is_owner = table[0, 0] != SCRATCH_PAGE
        found = [read_pages(pool, table) for pool in stored]
        owned = [jnp.where(is_owner, part, jnp.zeros((), part.dtype)) for part in found]
        summed: KeyValues = jax.lax.psum((owned[0], owned[1]), over)
        return summed, stored

    own, whole = PartitionSpec(over), PartitionSpec()
    run = jax.shard_map(
        store_and_read,
        mesh=mesh,
        in_specs=(whole, whole, own, own, whole),
        out_specs=(whole, own),
    )
    query, keys, values = new
    read, stored = run(keys, values, cache, tables, start)
    return attend_in_place(query, *read, start), stored
