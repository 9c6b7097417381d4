"""Weights in int8: symmetric, one float32 scale for each output channel.

An output channel is what a matrix product leaves: `scale[c] = max |w[..., c]| / 127` over the
contracted axes, and `w ≈ int8 · scale`. The error of a weight is at most half its channel's scale.
Norms are vectors, cost nothing, and stay float32.
"""

from __future__ import annotations

import numpy as np

from model.checkpoint.host_array import HostArray, aligned_empty
from model.errors import CheckpointError

SCALE_SUFFIX = ".channel_scale"
"""A quantised tensor's scales are stored beside it, under its name with this suffix."""

# The axes that a product with the tensor sums over, by the end of its name.
_CONTRACTED_AXES: dict[str, tuple[int, ...]] = {
    "embedding": (1,),
    "head": (1,),
    "attention.query": (0,),
    "attention.key": (0,),
    "attention.value": (0,),
    "attention.out": (0, 1),
    "mlp.up": (0,),
    "mlp.gate": (0,),
    "mlp.down": (0,),
}
_MAX_CODE = 127


def contracted_axes(name: str) -> tuple[int, ...] | None:
    """The axes that share a scale; None for a tensor that is not quantised (a norm)."""
    ends = name, ".".join(name.split(".")[-2:])
    return next((_CONTRACTED_AXES[end] for end in ends if end in _CONTRACTED_AXES), None)


def scale_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of a quantised tensor: its axes less the contracted ones."""
    contracted = contracted_axes(name) or ()
    return tuple(size for axis, size in enumerate(shape) if axis not in contracted)


def channel_scales(name: str, values: HostArray) -> HostArray:
    """float32 scales of a tensor.

    Raises:
        CheckpointError: The tensor holds infinities or NaN, which no scale can cover.
    """
    largest: HostArray = np.max(np.abs(values), axis=contracted_axes(name)).astype(np.float32)
    if not np.all(np.isfinite(largest)):
        raise CheckpointError(f"tensor {name!r} holds values that are not finite")
    # A channel of zeros has no scale of its own; any non-zero one gives its zeros back.
    scales: HostArray = np.where(largest > 0, largest / _MAX_CODE, 1).astype(np.float32)
    return scales


def quantize(name: str, values: HostArray, scales: HostArray) -> HostArray:
    """int8 codes of a tensor under its `channel_scales`."""
    spread = np.expand_dims(scales, contracted_axes(name) or ())
    codes: HostArray = np.rint(values.astype(np.float32) / spread)
    return codes.clip(-_MAX_CODE, _MAX_CODE).astype(np.int8)


def dequantize(name: str, codes: HostArray, scales: HostArray) -> HostArray:
    """The float32 values that codes and scales stand for."""
    spread = np.expand_dims(scales, contracted_axes(name) or ())
    values = aligned_empty(codes.shape, np.dtype(np.float32))
    np.multiply(codes, spread, out=values)
    return values
