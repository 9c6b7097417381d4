"""Heads, feed-forward width and vocabulary padded to what a mesh divides evenly.

Padding computes nothing new. A zero query head has zero rows in the output projection, a zero
feed-forward column a zero row in `down`, and the logits of a vocabulary row that is not a token
are hidden before anyone chooses among them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import Layout, weight_rules
from model.parameters import ParameterSpec, Params, declare_parameters, flatten, unflatten

# Finite, as a masked score is in `model.attention`: a sampler may scale it.
_HIDDEN = -1e30


def pad_config(config: PaLMConfig, layout: Layout, mesh_shape: Mapping[str, int]) -> PaLMConfig:
    """The smallest model at least as large that `layout` splits evenly over a mesh.

    Args:
        config: The model's shape.
        layout: How it is split.
        mesh_shape: Devices along each of the axes x, y and z.

    Returns:
        `config` with `num_heads`, `d_ff` and `vocab_size` rounded up.

    Raises:
        ConfigError: `d_model` is not a multiple of the devices that it is split over. It is not
            padded: LayerNorm takes its mean over all of it.
    """
    parts = {
        axis: math.prod(mesh_shape[mesh_axis] for mesh_axis in over)
        for axis, over in weight_rules(layout).items()
    }
    if config.d_model % parts["model"]:
        raise ConfigError(
            f"d_model={config.d_model} must be a multiple of the {parts['model']} devices "
            f"that layout {layout.name} splits it over"
        )
    # Each key/value head keeps a group of equally many query heads.
    heads = math.lcm(parts["heads"], config.num_kv_heads)
    return dataclasses.replace(
        config,
        num_heads=_round_up(config.num_heads, heads),
        d_ff=_round_up(config.d_ff, parts["ff"]),
        vocab_size=_round_up(config.vocab_size, parts["vocab"]),
    )


def pad_parameters(config: PaLMConfig, params: Params, padded: PaLMConfig) -> Params:
    """Parameters of `config` as parameters of `padded`, from `pad_config`: zeros are added.

    Raises:
        ConfigError: `padded` is smaller than `config`, or differs in more than what is padded.
    """
    _check_padded(config, padded)
    targets = declare_parameters(padded)
    return unflatten(
        {
            name: pad_array(value, targets[name], config.num_kv_heads)
            for name, value in flatten(params).items()
        }
    )


def hide_padding(logits: jax.Array, vocab_size: int) -> jax.Array:
    """Logits [..., V padded] with those past `vocab_size` so low that no token is chosen there.

    They are not cut off: that would gather logits that are split over devices.
    """
    is_token = jnp.arange(logits.shape[-1]) < vocab_size
    return jnp.where(is_token, logits, jnp.asarray(_HIDDEN, logits.dtype))


def pad_array(value: Any, target: ParameterSpec, kv_heads: int) -> Any:
    """A JAX or NumPy parameter of a model of `kv_heads` with zeros added up to `target`'s shape."""
    shape, axes = value.shape, target.axes
    if shape == target.shape:
        return value
    grouped = target.shape
    if "heads" in axes:
        # Query head n reads key/value head n // group, so zeros go to the end of every group.
        at = axes.index("heads")
        shape = (*shape[:at], kv_heads, shape[at] // kv_heads, *shape[at + 1 :])
        grouped = (*grouped[:at], kv_heads, grouped[at] // kv_heads, *grouped[at + 1 :])
    widths = [(0, large - small) for small, large in zip(shape, grouped, strict=True)]
    # On the host if it is there: a whole kernel may be more than one device holds.
    pad = np.pad if isinstance(value, np.ndarray) else jnp.pad
    return pad(value.reshape(shape), widths).reshape(target.shape)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _check_padded(config: PaLMConfig, padded: PaLMConfig) -> None:
    sizes = {"num_heads", "d_ff", "vocab_size"}
    for field in (field.name for field in dataclasses.fields(config)):
        small, large = getattr(config, field), getattr(padded, field)
        if field in sizes and large < small:
            raise ConfigError(f"padded {field}={large} must be at least the model's {small}")
        if field not in sizes and large != small:
            raise ConfigError(f"padded {field}={large!r} must be the model's {small!r}")
