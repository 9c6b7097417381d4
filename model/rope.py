"""Rotary position embedding (RoFormer, arXiv 2104.09864), in both of its layouts."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from model.config import RopeStyle


def rotary_angles(positions: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every rotation.

    Args:
        positions: int32[B, T].
        head_dim: Width of a head (H).
        theta: Base of the frequencies.

    Returns:
        Two float32[B, T, H/2].
    """
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(heads: jax.Array, angles: tuple[jax.Array, jax.Array], style: RopeStyle) -> jax.Array:
    """Rotate the pairs of each head.

    Args:
        heads: [B, T, N, H].
        angles: What `rotary_angles` returned.
        style: `interleaved` pairs (2i, 2i+1); `half` pairs (i, i + H/2).

    Returns:
        [B, T, N, H] in the dtype of `heads`, computed in float32.
    """
    cos, sin = (angle[:, :, None, :] for angle in angles)
    values = heads.astype(jnp.float32)
    if style == "interleaved":
        pairs = values.reshape(*values.shape[:-1], -1, 2)
        first, second = pairs[..., 0], pairs[..., 1]
    else:
        first, second = jnp.split(values, 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    if style == "interleaved":
        merged = jnp.stack(rotated, axis=-1).reshape(values.shape)
    else:
        merged = jnp.concatenate(rotated, axis=-1)
    return merged.astype(heads.dtype)
