"""The parts of a parallel block (PaLM, section 2): norm, multi-query attention, SwiGLU.

Einsum letters, here and everywhere: B batch, T query tokens, S key tokens, N query heads, K
key/value heads, G query heads per key/value head (N = K·G), H head dim, D model, F feed-forward,
V vocab, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from model.activations import into_attention, out_of_attention, place
from model.config import PaLMConfig
from model.linear import project
from model.parameters import ONES, ZEROS, declare, fan_in
from model.rope import rotate

Attend: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Takes scaled queries [B, T, N, H] and the new tokens' keys and values [B, T, K, H]; returns the
queries' attention [B, T, N, H] over all that they may see: earlier tokens and new ones up to their
own."""


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array | None, eps: float) -> jax.Array:
    """LayerNorm over the last axis, computed in float32, returned in the dtype of `x`."""
    values = x.astype(jnp.float32)
    centred = values - jnp.mean(values, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + eps) * scale.astype(jnp.float32)
    if bias is not None:
        normed = normed + bias.astype(jnp.float32)
    return normed.astype(x.dtype)


class Norm(nnx.Module):
    """LayerNorm over the residual stream; PaLM's has a scale only."""

    def __init__(self, config: PaLMConfig, rngs: nnx.Rngs | None) -> None:
        """Declare scale, and bias where the config has one."""
        self.eps = config.norm_eps
        self.scale = declare(rngs, (config.d_model,), ("model",), ONES)
        self.bias = (
            declare(rngs, (config.d_model,), ("model",), ZEROS) if config.norm_bias else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise [B, T, D]."""
        bias = None if self.bias is None else self.bias[...]
        return layer_norm(x, self.scale[...], bias, self.eps)


class Attention(nnx.Module):
    """Causal attention with K key/value heads shared by N query heads, and RoPE."""

    def __init__(self, config: PaLMConfig, rngs: nnx.Rngs | None) -> None:
        """Declare the four kernels, and the per-head norms where the config has them."""
        self.config = config
        d_model, heads, kv_heads = config.d_model, config.num_heads, config.num_kv_heads
        head_dim = config.head_dim
        kernel = fan_in(d_model)
        kv_axes = ("model", "kv_heads", "head_dim")
        self.query = declare(
            rngs, (d_model, heads, head_dim), ("model", "heads", "head_dim"), kernel
        )
        self.key = declare(rngs, (d_model, kv_heads, head_dim), kv_axes, kernel)
        self.value = declare(rngs, (d_model, kv_heads, head_dim), kv_axes, kernel)
        self.out = declare(
            rngs,
            (heads, head_dim, d_model),
            ("heads", "head_dim", "model"),
            fan_in(heads * head_dim),
        )
        self.query_norm = (
            declare(rngs, (heads, head_dim), ("heads", "head_dim"), ONES)
            if config.qk_norm
            else None
        )
        self.key_norm = (
            declare(rngs, (kv_heads, head_dim), ("kv_heads", "head_dim"), ONES)
            if config.qk_norm
            else None
        )

    def __call__(
        self,
        x: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        attend: Attend,
    ) -> jax.Array:
        """Attend.

        Args:
            x: Normed input, [B, T, D].
            angles: RoPE's cosine and sine for the T positions.
            attend: Keeps the new keys and values where it wants to, and attends.

        Returns:
            [B, T, D].
        """
        config = self.config
        query = project(x, self.query[...])
        key = project(x, self.key[...])
        value = project(x, self.value[...])
        if self.query_norm is not None and self.key_norm is not None:
            query = layer_norm(query, self.query_norm[...], None, config.norm_eps)
            key = layer_norm(key, self.key_norm[...], None, config.norm_eps)
        query = rotate(query, angles, config.rope_style) * jnp.asarray(
            config.head_dim**-0.5, x.dtype
        )
        key = rotate(key, angles, config.rope_style)
        mixed = attend(*into_attention(query, key, value))
        return project(out_of_attention(mixed), self.out[...], in_axes=2)


class FeedForward(nnx.Module):
    """SwiGLU (`down(silu(gate(x)) * up(x))`), or a plain two-matrix layer."""

    def __init__(self, config: PaLMConfig, rngs: nnx.Rngs | None) -> None:
        """Declare the two or three kernels."""
        self.activation = config.activation
        d_model, d_ff = config.d_model, config.d_ff
        self.up = declare(rngs, (d_model, d_ff), ("model", "ff"), fan_in(d_model))
        self.gate = (
            declare(rngs, (d_model, d_ff), ("model", "ff"), fan_in(d_model))
            if config.gated
            else None
        )
        self.down = declare(rngs, (d_ff, d_model), ("ff", "model"), fan_in(d_ff))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transform [B, T, D]."""
        up = project(x, self.up[...])
        if self.gate is None:
            hidden = self._activate(up)
        else:
            hidden = self._activate(project(x, self.gate[...])) * up
        return project(place(hidden, "batch", "length", "ff"), self.down[...])

    def _activate(self, x: jax.Array) -> jax.Array:
        return jax.nn.silu(x) if self.activation == "silu" else jax.nn.gelu(x, approximate=False)


class Block(nnx.Module):
    """`y = x + Attention(LN(x)) + MLP(LN(x))`, one norm feeding both unless configured apart."""

    def __init__(self, config: PaLMConfig, rngs: nnx.Rngs | None) -> None:
        """Declare the block's parts."""
        self.norm = Norm(config, rngs)
        self.mlp_norm = Norm(config, rngs) if config.separate_mlp_norm else None
        self.attention = Attention(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        attend: Attend,
    ) -> jax.Array:
        """Apply the block to [B, T, D]; arguments as in `Attention`."""
        normed = place(self.norm(x), "batch", "length", "model")
        mlp_input = normed if self.mlp_norm is None else self.mlp_norm(x)
        y = x + self.attention(normed, angles, attend) + self.mlp(mlp_input)
        return place(y, "batch", "length", "model")
