"""The forward step as CPUs like it best: two matrix products a block, over weights packed once.

PaLM's parallel block needs one product into it (query, key, value, gate and up side by side) and
one out of it (attention's output and the feed-forward layer's, whose sum is that of one product
over both). What it computes is `model.palm.forward_step`, up to the rounding that the form of the
weights brings; the kernels make a row's result independent of its neighbours, of how its prompt was
cut and of how many keys are read beside its own.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from model import kernels
from model.config import PaLMConfig
from model.kv_cache import KeyValues, KVCache
from model.layers import layer_norm
from model.parameters import Params
from model.rope import rotary_angles, rotate

WeightForm: TypeAlias = Literal["int8", "bfloat16"]
"""int8 is W8A8: weights by output channel, activations by token. bfloat16 keeps what the weights
have of it, and sums in float32."""

_LARGEST_INT8 = 127


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedMatrix:
    """A [K, N] matrix as the kernels read it.

    Attributes:
        packed: As `model.kernels.pack_int8` or `pack_bf16` lays it out.
        scale: float32[N] for int8; None for bfloat16.
        columns: N.
    """

    packed: jax.Array
    scale: jax.Array | None
    columns: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, matrix: jax.Array, form: WeightForm) -> PackedMatrix:
        """Pack float[K, N] weights."""
        if form == "bfloat16":
            packed = kernels.pack_bf16(matrix.astype(jnp.bfloat16))
            return cls(packed, None, matrix.shape[1])
        values, scale = quantize_columns(matrix)
        return cls(kernels.pack_int8(values), scale, matrix.shape[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        """float32[M, N] of float32[M, K]."""
        if self.scale is None:
            return kernels.bf16_matmul(x, self.packed, self.columns)
        return kernels.int8_matmul(x, self.packed, self.scale)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedBlock:
    """A block's weights.

    Attributes:
        norm_scale: float32[D].
        norm_bias: float32[D], where the config has one.
        query_norm: float32[N, H], where the config has one.
        key_norm: float32[K, H], likewise.
        into: [D, (N + 2 K) H + 2 F]: query, key, value, gate and up; without a gate F fewer.
        out: [N H + F, D]: attention's output above the feed-forward layer's.
    """

    norm_scale: jax.Array
    norm_bias: jax.Array | None
    query_norm: jax.Array | None
    key_norm: jax.Array | None
    into: PackedMatrix
    out: PackedMatrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedParams:
    """A whole model's weights.

    Attributes:
        embedding: float32[V, D].
        layers: The blocks.
        norm_scale: float32[D], of the final norm.
        norm_bias: float32[D], where the config has one.
        head: [D, V].
    """

    embedding: jax.Array
    layers: list[FusedBlock]
    norm_scale: jax.Array
    norm_bias: jax.Array | None
    head: PackedMatrix


def can_fuse(config: PaLMConfig) -> bool:
    """Whether a model has this form: one norm must feed both sides of its blocks."""
    return not config.separate_mlp_norm


def quantize_columns(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Symmetric int8 by column: int8[K, N] and float32[N], whose product is near `matrix`."""
    values = matrix.astype(jnp.float32)
    peak = jnp.max(jnp.abs(values), axis=0)
    scale = jnp.where(peak > 0, peak / _LARGEST_INT8, 1.0)
    return jnp.round(values / scale).astype(jnp.int8), scale


def fuse(config: PaLMConfig, params: Params, form: WeightForm) -> FusedParams:
    """Pack a model's weights, a block at a time.

    Raises:
        KernelsUnavailableError: There are no kernels here.
        ValueError: The model does not have this form; see `can_fuse`.
    """
    if not can_fuse(config):
        raise ValueError(f"model {config.name!r} has a norm of its own for its feed-forward layer")
    block = functools.partial(_fuse_block, config, form=form)
    table = params["embedding"] if config.tied_embeddings else params["head"]
    layers = params["layers"]
    return FusedParams(
        embedding=jnp.asarray(params["embedding"], jnp.float32),
        layers=[block(layers[str(index)]) for index in range(config.num_layers)],
        norm_scale=_float32(params["final_norm"]["scale"]),
        norm_bias=_optional(params["final_norm"].get("bias")),
        head=PackedMatrix.of(jnp.asarray(table).T, form),
    )


def fused_step(
    config: PaLMConfig,
    params: FusedParams,
    tokens: jax.Array,
    start: jax.Array,
    cache: KVCache,
    pages: jax.Array,
) -> tuple[jax.Array, KVCache]:
    """What `model.palm.forward_step` does; the arguments are the same but for `params`."""
    positions = start[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    angles = rotary_angles(positions, config.head_dim, config.rope_theta)
    x = jnp.take(params.embedding, tokens, axis=0)
    updated: KVCache = []
    for block, stored in zip(params.layers, cache, strict=True):
        x, stored = _step_block(config, block, x, angles, stored, pages, start)
        updated.append(stored)
    return layer_norm(x, params.norm_scale, params.norm_bias, config.norm_eps), updated


def fused_unembed(config: PaLMConfig, params: FusedParams, hidden: jax.Array) -> jax.Array:
    """float32[M, V] logits of final-normed hidden states [M, D]."""
    return params.head(hidden * jnp.float32(config.resolved_logit_scale))


# Traced and lowered once for all layers, as in `model.palm`.
@functools.partial(jax.jit, static_argnames=("config",))
def _step_block(
    config: PaLMConfig,
    block: FusedBlock,
    x: jax.Array,
    angles: tuple[jax.Array, jax.Array],
    cache: KeyValues,
    pages: jax.Array,
    start: jax.Array,
) -> tuple[jax.Array, KeyValues]:
    batch, length, width = x.shape
    rows = batch * length
    heads, kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
    normed = layer_norm(x, block.norm_scale, block.norm_bias, config.norm_eps)
    ends = (heads * head_dim, (heads + kv_heads) * head_dim, (heads + 2 * kv_heads) * head_dim)
    parts = jnp.split(block.into(normed.reshape(rows, width)), ends, axis=1)
    query, key, value = (part.reshape(batch, length, -1, head_dim) for part in parts[:3])
    if block.query_norm is not None and block.key_norm is not None:
        query = layer_norm(query, block.query_norm, None, config.norm_eps)
        key = layer_norm(key, block.key_norm, None, config.norm_eps)
    query = rotate(query, angles, config.rope_style) * jnp.float32(head_dim**-0.5)
    key = rotate(key, angles, config.rope_style)
    stored = kernels.write_pages(cache[0], cache[1], key, value, pages, start)
    mixed = kernels.paged_attention(query, stored[0], stored[1], pages, start)
    joined = jnp.concatenate([mixed.reshape(rows, -1), _feed_forward(config, parts[3])], axis=1)
    return x + block.out(joined).reshape(x.shape), stored


def _feed_forward(config: PaLMConfig, inputs: jax.Array) -> jax.Array:
    """[M, F] of the gate and up projections [M, 2 F], or of the up projection alone."""
    activate = jax.nn.silu if config.activation == "silu" else _exact_gelu
    if not config.gated:
        return activate(inputs)
    gate, up = jnp.split(inputs, 2, axis=1)
    return activate(gate) * up


def _exact_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


@functools.partial(jax.jit, static_argnames=("config", "form"))
def _fuse_block(config: PaLMConfig, block: Any, *, form: WeightForm) -> FusedBlock:
    attention, mlp = block["attention"], block["mlp"]
    into = [attention[name].reshape(config.d_model, -1) for name in ("query", "key", "value")]
    into += [mlp[name] for name in ("gate", "up") if name in mlp]
    out = [attention["out"].reshape(-1, config.d_model), mlp["down"]]
    return FusedBlock(
        norm_scale=_float32(block["norm"]["scale"]),
        norm_bias=_optional(block["norm"].get("bias")),
        query_norm=_optional(attention.get("query_norm")),
        key_norm=_optional(attention.get("key_norm")),
        into=PackedMatrix.of(jnp.concatenate(into, axis=1), form),
        out=PackedMatrix.of(jnp.concatenate(out, axis=0), form),
    )


def _float32(array: jax.Array) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


def _optional(array: jax.Array | None) -> jax.Array | None:
    return None if array is None else _float32(array)
