"""Where weights and activations lie on a mesh while a layout is in force.

`model.layers` calls these functions at the few points where a layout decides what is communicated.
Without a layout they return their inputs, and the model compiles as if they were not there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.errors import ConfigError
from model.layout_rules import (
    Layout,
    Rules,
    activation_rules,
    dividing,
    mesh_axes,
    used_weight_rules,
)

NewTokens: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""Queries [B, T, N, H], keys and values [B, T, K, H]."""

Pools: TypeAlias = tuple[jax.Array, jax.Array]
"""A layer's keys and values, each [pages, page_size, K, H]."""

AttendPages: TypeAlias = Callable[[NewTokens, Pools, jax.Array, jax.Array], tuple[jax.Array, Pools]]
"""Takes new tokens, a layer's cache, tables and first positions; returns [B, T, N, H] and the
cache."""

# Part of the key of JAX's trace cache: a block traced under one layout, or under none, is never
# taken for another.
_in_force = jax.make_user_context(None)


@contextlib.contextmanager
def under_layout(layout: Layout, mesh: Mesh) -> Iterator[None]:
    """Trace everything inside as `layout` says on `mesh`, whose axes are x, y and z."""
    with _in_force((layout, mesh)):
        yield


def place(x: jax.Array, *axes: str) -> jax.Array:
    """Constrain an activation to lie as the layout in force says, if there is one.

    Args:
        x: Any activation.
        axes: A logical name for each of its axes, of `model.layout_rules.activation_rules`.

    Returns:
        `x`; an axis is split over as many of its mesh axes, from the first, as divide its size.

    Raises:
        ConfigError: Two axes of `x` fall on one mesh axis.
    """
    if _in_force.value is None:
        return x
    layout, mesh = _in_force.value
    return _constrain(x, axes, activation_rules(layout), mesh)


def place_weight(weight: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Gather a stored weight for its use, where the layout in force gathers weights."""
    if _in_force.value is None or not _in_force.value[0].gathered_axes:
        return weight
    layout, mesh = _in_force.value
    return _constrain(weight, axes, used_weight_rules(layout), mesh)


def into_attention(
    query: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Move queries [B, T, N, H] and new keys and values [B, T, K, H] to where attention runs.

    By batch, the queries go from split heads to split sequences in one all-to-all (Pope et al.
    2022, section 3.3); the first constraint sums their parts, so that only whole ones travel.
    """
    query = place(query, "resharded_batch", "length", "heads", "head_dim")
    query = place(query, "attention_batch", "length", "attention_heads", "head_dim")
    key = place(key, "attention_batch", "length", "kv_heads", "head_dim")
    value = place(value, "attention_batch", "length", "kv_heads", "head_dim")
    return query, key, value


def out_of_attention(mixed: jax.Array) -> jax.Array:
    """Move attention's output [B, T, N, H] back to where the output projection takes it.

    Two steps by batch: an all-to-all back to split heads, and a gather of the sequences that the
    chips along x hold. In one step XLA would gather everything on every chip.
    """
    mixed = place(mixed, "attention_batch", "length", "attention_heads", "head_dim")
    mixed = place(mixed, "resharded_batch", "length", "heads", "head_dim")
    return place(mixed, "batch", "length", "heads", "head_dim")


def on_own_pages(
    attend: AttendPages, new: NewTokens, cache: Pools, pages: jax.Array, start: jax.Array
) -> tuple[jax.Array, Pools]:
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
    if _in_force.value is None:
        return attend(new, cache, pages, start)
    layout, mesh = _in_force.value
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
        new: NewTokens, cache: Pools, pages: jax.Array, start: jax.Array
    ) -> tuple[jax.Array, Pools]:
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
    attended: tuple[jax.Array, Pools] = run(new, cache, pages, start)
    return attended


def _constrain(x: jax.Array, axes: Sequence[str], rules: Rules, mesh: Mesh) -> jax.Array:
    placed = mesh_axes(axes, rules)
    spec = [dividing(size, over, mesh.shape) for size, over in zip(x.shape, placed, strict=True)]
    placed_x: jax.Array = jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(*spec))
    )
    return placed_x
