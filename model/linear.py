"""Matrix products whose gradients are laid out for the CPU as well as for accelerators.

A product runs in its kernel's dtype, sums in float32, and comes back in the dtype of its input. So
the dtype of the weights alone decides the precision: bfloat16 kernels under float32 activations are
PaLM's mixed precision.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp

_PLAIN = (((1,), (0,)), ((), ()))
_OVER_COLUMNS = (((1,), (1,)), ((), ()))
_OVER_ROWS = (((0,), (0,)), ((), ()))

_Dimensions: TypeAlias = tuple[
    tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]
]


def _dot(a: jax.Array, b: jax.Array, dimensions: _Dimensions) -> jax.Array:
    # Asked for in float32 whatever the operands are: XLA's CPU backend has its fast bfloat16
    # kernels for that alone.
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _dot(x.astype(kernel.dtype), kernel, _PLAIN).astype(x.dtype)


def _product_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel), (x, kernel)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # XLA's CPU backend transposes the left operand of this product, and would fuse the
    # activation's derivative into that strided copy. The barrier keeps the derivative contiguous,
    # and the narrower operand is the one to be transposed.
    narrow = jax.lax.optimization_barrier(gradient.astype(kernel.dtype))
    inputs = x.astype(kernel.dtype)
    if x.shape[1] <= gradient.shape[1]:
        kernel_gradient = _dot(inputs, narrow, _OVER_ROWS)
    else:
        kernel_gradient = _dot(narrow, inputs, _OVER_ROWS).T
    x_gradient = _dot(narrow, kernel, _OVER_COLUMNS)
    return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


def project(x: jax.Array, kernel: jax.Array, in_axes: int = 1) -> jax.Array:
    """Contract the last `in_axes` axes of x, [B, T, …in], with the first of kernel, [in…, out…].

    Returns:
        [B, T, out…].
    """
    inner = kernel.shape[:in_axes]
    outer = kernel.shape[in_axes:]
    lead = x.shape[: x.ndim - in_axes]
    width = 1
    for size in inner:
        width *= size
    product = _product(x.reshape(-1, width), kernel.reshape(width, -1))
    return jnp.reshape(product, (*lead, *outer))
