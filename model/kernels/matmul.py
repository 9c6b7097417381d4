"""Matrix products with weights that are packed once, for any number of rows.

XLA's CPU products lay the weights out anew at every call, which at a few rows costs more than the
product. Here that is done once, by `pack_int8`, `pack_bf16` or `pack_f32`, and a call reads the
weights from memory once.

A row of a result has the same bits whatever the other rows, their number and the number of threads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from model.kernels.native import resolve_isa

PANEL_COLUMNS = 64
"""Weights are packed this many columns at a time; `src/matmul.h` has the same."""

_INT8_GROUP = 4
_BF16_GROUP = 2
_F32_GROUP = 1

# Beyond this, a sum of products of int8 could pass 32 bits.
_MAX_INT8_INNER = 1 << 17


def pack_int8(weights: jax.Array) -> jax.Array:
    """Lay int8 weights out for `int8_matmul`; traceable.

    Args:
        weights: int8[K, N], K at most 131072.

    Returns:
        uint8[ceil(N / 64), ceil(K / 4), 64, 4]: the weights plus 128, padded with zero weights.

    Raises:
        TypeError: The weights are not int8.
        ValueError: They are not a matrix, or K is too large.
    """
    _check("weights", weights, jnp.int8, 2)
    if weights.shape[0] > _MAX_INT8_INNER:
        raise ValueError(
            f"weights has K={weights.shape[0]}, above the limit of {_MAX_INT8_INNER} at which"
            " 32-bit sums are exact"
        )
    unsigned = jax.lax.bitcast_convert_type(weights, jnp.uint8) ^ jnp.uint8(0x80)
    return _pack(unsigned, _INT8_GROUP, 0x80)


def pack_bf16(weights: jax.Array) -> jax.Array:
    """Lay bfloat16 weights out for `bf16_matmul`; traceable.

    Args:
        weights: bfloat16[K, N].

    Returns:
        bfloat16[ceil(N / 64), ceil(K / 2), 64, 2], padded with zeros.

    Raises:
        TypeError: The weights are not bfloat16.
        ValueError: They are not a matrix.
    """
    _check("weights", weights, jnp.bfloat16, 2)
    return _pack(weights, _BF16_GROUP, 0)


def pack_f32(weights: jax.Array) -> jax.Array:
    """Lay float32 weights out for `f32_matmul`; traceable.

    Args:
        weights: float32[K, N].

    Returns:
        float32[ceil(N / 64), K, 64, 1], padded with zeros.

    Raises:
        TypeError: The weights are not float32.
        ValueError: They are not a matrix.
    """
    _check("weights", weights, jnp.float32, 2)
    return _pack(weights, _F32_GROUP, 0)


def int8_matmul(
    x: jax.Array, packed: jax.Array, scale: jax.Array, *, isa: str | None = None
) -> jax.Array:
    """x times int8 weights, with x quantized to int8 row by row inside (W8A8).

    A row becomes q = round(x · (127 / absmax)), ties to even, and the result is
    (Σ q·w) · ((absmax / 127) · scale), the sum exact: the same bits at every `isa`. A row with an
    infinity or a NaN gives NaN throughout; one whose magnitudes are all below 1e-30 gives 0.

    Args:
        x: float32[M, K].
        packed: uint8[ceil(N / 64), ceil(K / 4), 64, 4] of `pack_int8`.
        scale: float32[N], by which a column's int8 weights are to be multiplied.
        isa: The level of instructions, one of `ISAS`; None for the best.

    Returns:
        float32[M, N].

    Raises:
        KernelsUnavailableError: There are no kernels here.
        TypeError: An argument has another dtype.
        ValueError: The shapes do not fit together, or `isa` is unknown.
    """
    level = resolve_isa(isa)
    _check("x", x, jnp.float32, 2)
    _check("scale", scale, jnp.float32, 1)
    columns = scale.shape[0]
    _check_packed(packed, jnp.uint8, x.shape[1], columns, _INT8_GROUP)
    call = jax.ffi.ffi_call("talipot_int8_matmul", _result(x, columns), vmap_method="sequential")
    result: jax.Array = call(x, packed, scale, isa=np.int32(level))
    return result


def bf16_matmul(
    x: jax.Array, packed: jax.Array, columns: int, *, isa: str | None = None
) -> jax.Array:
    """x, rounded to bfloat16, times bfloat16 weights, with float32 sums in the order of K.

    Levels of instructions differ in the last bits.

    Args:
        x: float32[M, K].
        packed: bfloat16[ceil(N / 64), ceil(K / 2), 64, 2] of `pack_bf16`.
        columns: N.
        isa: The level of instructions, one of `ISAS`; None for the best.

    Returns:
        float32[M, N].

    Raises:
        KernelsUnavailableError: There are no kernels here.
        TypeError: An argument has another dtype.
        ValueError: The shapes do not fit together, or `isa` is unknown.
    """
    return _float_matmul("talipot_bf16_matmul", x, packed, columns, isa, jnp.bfloat16, _BF16_GROUP)


def f32_matmul(
    x: jax.Array, packed: jax.Array, columns: int, *, isa: str | None = None
) -> jax.Array:
    """x times float32 weights, with float32 sums in the order of K.

    Levels of instructions differ in the last bits.

    Args:
        x: float32[M, K].
        packed: float32[ceil(N / 64), K, 64, 1] of `pack_f32`.
        columns: N.
        isa: The level of instructions, one of `ISAS`; None for the best.

    Returns:
        float32[M, N].

    Raises:
        KernelsUnavailableError: There are no kernels here.
        TypeError: An argument has another dtype.
        ValueError: The shapes do not fit together, or `isa` is unknown.
    """
    return _float_matmul("talipot_f32_matmul", x, packed, columns, isa, jnp.float32, _F32_GROUP)


def _float_matmul(
    target: str,
    x: jax.Array,
    packed: jax.Array,
    columns: int,
    isa: str | None,
    dtype: jnp.dtype,
    group: int,
) -> jax.Array:
    level = resolve_isa(isa)
    _check("x", x, jnp.float32, 2)
    _check_packed(packed, dtype, x.shape[1], columns, group)
    call = jax.ffi.ffi_call(target, _result(x, columns), vmap_method="sequential")
    result: jax.Array = call(x, packed, isa=np.int32(level))
    return result


def _pack(weights: jax.Array, group: int, zero: int) -> jax.Array:
    inner, columns = weights.shape
    groups, panels = -(-inner // group), -(-columns // PANEL_COLUMNS)
    padding = ((0, groups * group - inner), (0, panels * PANEL_COLUMNS - columns))
    padded = jnp.pad(weights, padding, constant_values=np.asarray(zero, weights.dtype))
    return padded.reshape(groups, group, panels, PANEL_COLUMNS).transpose(2, 0, 3, 1)


def _result(x: jax.Array, columns: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((x.shape[0], columns), jnp.float32)


def _check(name: str, array: jax.Array, dtype: jnp.dtype, ndim: int) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{name} is {array.dtype}, not {jnp.dtype(dtype).name}")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}, not {ndim} axes")


def _check_packed(
    packed: jax.Array, dtype: jnp.dtype, inner: int, columns: int, group: int
) -> None:
    if packed.dtype != dtype:
        raise TypeError(f"packed is {packed.dtype}, not {jnp.dtype(dtype).name}")
    expected = (-(-columns // PANEL_COLUMNS), -(-inner // group), PANEL_COLUMNS, group)
    if packed.shape != expected:
        raise ValueError(
            f"packed has shape {packed.shape}, not {expected} as K={inner} and N={columns} need"
        )
