"""Where weights and activations lie on a mesh while a layout is in force.

`model.layers` calls these functions at the few points where a layout decides what is communicated.
Without a layout they return their inputs, and the model compiles as if they were not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.layout_rules import (
    Layout,
    Rules,
    activation_rules,
    dividing,
    mesh_axes,
    used_weight_rules,
)

# Part of the key of JAX's trace cache: a block traced under one layout, or under none, is never
# taken for another.
_in_force = jax.make_user_context(None)


@contextlib.contextmanager
def under_layout(layout: Layout, mesh: Mesh) -> Iterator[None]:
    """Trace everything inside as `layout` says on `mesh`, whose axes are x, y and z."""
    with _in_force((layout, mesh)):
        yield


def layout_in_force() -> tuple[Layout, Mesh] | None:
    """The layout and the mesh of the innermost `under_layout`; None outside of any."""
    in_force: tuple[Layout, Mesh] | None = _in_force.value
    return in_force


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


def _constrain(x: jax.Array, axes: Sequence[str], rules: Rules, mesh: Mesh) -> jax.Array:
    placed = mesh_axes(axes, rules)
    spec = [dividing(size, over, mesh.shape) for size, over in zip(x.shape, placed, strict=True)]
    placed_x: jax.Array = jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(*spec))
    )
    return placed_x
