"""Which mesh axis each logical axis of a parameter is split over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import PaLMConfig
from model.errors import ConfigError
from model.parameters import declare_parameters

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
    axes: Sequence[str], rules: Mapping[str, str | None] = LOGICAL_RULES
) -> PartitionSpec:
    """The mesh axes for logical `axes`.

    Raises:
        ConfigError: An axis has no rule, or two of them fall on one mesh axis.
    """
    unknown = [axis for axis in axes if axis not in rules]
    if unknown:
        raise ConfigError(f"logical axes {unknown} have no rule; known: {sorted(rules)}")
    placed = [rules[axis] for axis in axes]
    used = [axis for axis in placed if axis is not None]
    if len(used) != len(set(used)):
        raise ConfigError(f"logical axes {tuple(axes)} fall on one mesh axis twice: {placed}")
    return PartitionSpec(*placed)


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
