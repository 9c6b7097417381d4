"""Which mesh axes each logical axis of a parameter is split over.

Two kinds of mesh. Training and loading use (data, model) with the 1D rules that stand here. The
layouts of `model.layout_rules` use (x, y, z): `place_parameters` pads and splits the parameters,
and whatever is traced inside `under_layout` keeps to the layout:

    padded, placed = place_parameters(config, params, layout, mesh)
    with under_layout(layout, mesh):
        logits = jax.jit(forward, static_argnums=0)(padded, placed, tokens)
    logits = hide_padding(logits, config.vocab_size)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import (
    MESH_AXES,
    Layout,
    activation_rules,
    dividing,
    mesh_axes,
    weight_rules,
)
from model.padding import pad_config, pad_parameters
from model.parameters import Params, declare_parameters, flatten, unflatten

DATA_AXIS = "data"
MODEL_AXIS = "model"

LOGICAL_RULES: Mapping[str, str | None] = {
    "vocab": MODEL_AXIS,
    "heads": MODEL_AXIS,
    "ff": MODEL_AXIS,
    # PaLM has one key/value head, shared by all query heads: every chip keeps a copy.
    "kv_heads": None,
    "head_dim": None,
    "model": None,
}
"""1D weight-stationary: one all-reduce a parallel block (Pope et al. 2022, section 3.2)."""


def make_mesh(devices: Sequence[jax.Device] | None = None, *, model_axis: int = 1) -> Mesh:
    """A mesh of axes (data, model) over `devices` (all by default), `model_axis` along the model.

    Raises:
        ConfigError: `model_axis` does not divide the number of devices.
    """
    chosen = list(jax.devices() if devices is None else devices)
    if model_axis < 1 or len(chosen) % model_axis:
        raise ConfigError(f"model_axis={model_axis} must divide the {len(chosen)} devices")
    grid = np.asarray(chosen, dtype=object).reshape(-1, model_axis)
    return Mesh(grid, (DATA_AXIS, MODEL_AXIS))


def partition_spec(
    axes: Sequence[str], rules: Mapping[str, str | tuple[str, ...] | None] = LOGICAL_RULES
) -> PartitionSpec:
    """The mesh axes for logical `axes`.

    Raises:
        ConfigError: An axis has no rule, or two of them fall on one mesh axis.
    """
    placed = mesh_axes(axes, {axis: _as_tuple(over) for axis, over in rules.items()})
    return PartitionSpec(*(over[0] if len(over) == 1 else over or None for over in placed))


def parameter_shardings(config: PaLMConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """A sharding for every parameter by dotted name.

    An axis that the mesh does not divide evenly is kept whole on every device.
    """
    shardings = {}
    for name, spec in declare_parameters(config).items():
        placed = [
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(partition_spec(spec.axes), spec.shape, strict=True)
        ]
        shardings[name] = NamedSharding(mesh, PartitionSpec(*placed))
    return shardings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Parameters padded for a layout on a mesh of axes (x, y, z), and stored as it stores them."""

    layout: Layout
    mesh: Mesh

    def pad(self, config: PaLMConfig) -> PaLMConfig:
        """The shape of a model of `config` that lies there; raises as `pad_config` does."""
        return pad_config(config, self.layout, self.mesh.shape)


def make_layout_mesh(shape: Sequence[int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of axes (x, y, z) over `devices` (all by default).

    Raises:
        ConfigError: `shape` is not three positive sizes whose product is the number of devices.
    """
    chosen = list(jax.devices() if devices is None else devices)
    if len(shape) != len(MESH_AXES) or min(shape) < 1 or math.prod(shape) != len(chosen):
        raise ConfigError(
            f"mesh={tuple(shape)} must be 3 sizes (x, y, z) of at least 1 whose product is the "
            f"{len(chosen)} devices"
        )
    return Mesh(np.asarray(chosen, dtype=object).reshape(tuple(shape)), MESH_AXES)


def layout_shardings(padded: PaLMConfig, layout: Layout, mesh: Mesh) -> dict[str, NamedSharding]:
    """A sharding for every parameter, by dotted name, of a model padded for `layout`."""
    rules = weight_rules(layout)
    return {
        name: NamedSharding(mesh, partition_spec(spec.axes, rules))
        for name, spec in declare_parameters(padded).items()
    }


def place_parameters(
    config: PaLMConfig, params: Params, layout: Layout, mesh: Mesh
) -> tuple[PaLMConfig, Params]:
    """Pad parameters for `layout` and put them where it stores them.

    Returns:
        The padded model's shape, and its parameters.

    Raises:
        ConfigError: The mesh does not divide `d_model`, which cannot be padded.
    """
    padded = pad_config(config, layout, mesh.shape)
    shardings = layout_shardings(padded, layout, mesh)
    placed = {
        name: jax.device_put(value, shardings[name])
        for name, value in flatten(pad_parameters(config, params, padded)).items()
    }
    return padded, unflatten(placed)


def cache_sharding(layout: Layout, mesh: Mesh, batch: int) -> NamedSharding:
    """How keys and values [pages, page_size, K, H] are stored for steps of `batch` rows.

    The pages are split as the rows are: over as many of the mesh axes that `layout` splits
    attention's batch over as divide `batch`; over none of them, every device has all pages. What
    a row's table then means, `model.own_pages` says.
    """
    over = dividing(batch, activation_rules(layout)["attention_batch"], mesh.shape)
    return NamedSharding(mesh, PartitionSpec(over or None))


def _as_tuple(over: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if over is None:
        return ()
    return (over,) if isinstance(over, str) else over
