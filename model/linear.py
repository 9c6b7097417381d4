"""Matrix products whose gradients are laid out for the CPU as well as for accelerators."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_OVER_ROWS = (((0,), (0,)), ((), ()))


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _product_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # XLA's CPU backend transposes the left operand of this product, and would fuse the
    # activation's derivative into that strided copy. The barrier keeps the derivative contiguous,
    # and the narrower operand is the one to be transposed.
    gradient = jax.lax.optimization_barrier(gradient)
    if x.shape[1] <= gradient.shape[1]:
        kernel_gradient = jax.lax.dot_general(x, gradient, _OVER_ROWS)
    else:
        kernel_gradient = jax.lax.dot_general(gradient, x, _OVER_ROWS).T
    return gradient @ kernel.T, kernel_gradient


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
