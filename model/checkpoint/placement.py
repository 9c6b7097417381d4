"""Host arrays into device arrays, one at a time: a model never lies in host memory twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from model.checkpoint.host_array import HostArray, aligned_copy
from model.config import PaLMConfig
from model.errors import CheckpointError
from model.layout_rules import Layout
from model.padding import pad_array, pad_config
from model.parameters import Params, declare_parameters, unflatten
from model.partition import layout_shardings, parameter_shardings


def place_parameters(
    config: PaLMConfig,
    arrays: Iterable[tuple[str, HostArray]],
    *,
    dtype: np.dtype[Any],
    mesh: Mesh | None,
    layout: Layout | None = None,
) -> Params:
    """Put every parameter where it belongs, as it arrives.

    Beyond the device arrays, at most the array in hand and one copy of it are alive, provided that
    `arrays` makes them lazily; on CPU devices the copy becomes the device array. No device holds
    more of an array than its own part.

    Args:
        config: The model's shape.
        arrays: Every parameter once, by dotted name, in any order; views are welcome.
        dtype: What to convert them to.
        mesh: Where to shard them by `model.partition`; None is the default device.
        layout: Pad them for this layout on `mesh`, whose axes are x, y and z, and store them as it
            does; None is a mesh of axes (data, model).

    Returns:
        The parameters, with `layout` those of `model.padding.pad_config`.

    Raises:
        CheckpointError: `arrays` has a parameter too many, too few or of a wrong shape.
        ConfigError: The mesh does not divide `d_model`.
    """
    specs = targets = declare_parameters(config)
    shardings = None
    if mesh is not None and layout is not None:
        padded = pad_config(config, layout, mesh.shape)
        targets, shardings = declare_parameters(padded), layout_shardings(padded, layout, mesh)
    elif mesh is not None:
        shardings = parameter_shardings(config, mesh)
    placed: dict[str, jax.Array] = {}
    for name, array in arrays:
        if name not in specs or name in placed:
            problem = "duplicate" if name in placed else "unknown"
            raise CheckpointError(f"{problem} parameter {name!r}")
        if array.shape != specs[name].shape:
            raise CheckpointError(
                f"parameter {name!r}: found shape {array.shape}, expected {specs[name].shape}"
            )
        padded_array = pad_array(array, targets[name], config.num_kv_heads)
        placed[name] = _place(padded_array, dtype, None if shardings is None else shardings[name])
        # Copies run in the background: without this, several host arrays would be alive at once.
        placed[name].block_until_ready()
    if missing := sorted(specs.keys() - placed.keys()):
        raise CheckpointError(f"missing parameters {missing[:4]} of {len(missing)}")
    return unflatten(placed)


def _place(
    array: HostArray, dtype: np.dtype[Any], sharding: jax.sharding.NamedSharding | None
) -> jax.Array:
    if sharding is None:
        on_device: jax.Array = jax.device_put(aligned_copy(array, dtype))
        return on_device
    sharded: jax.Array = jax.make_array_from_callback(
        array.shape, sharding, lambda index: aligned_copy(array[index], dtype)
    )
    return sharded
