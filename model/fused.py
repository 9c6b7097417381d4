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
from model.kv_cache import KVCache
from model.parameters import Params
from model.rope import rotary_angles

WeightForm: TypeAlias = Literal["int8", "bfloat16", "float32"]
"""int8 is W8A8: weights by output channel, activations by token. bfloat16 keeps what the weights
have of it, and sums in float32; float32 keeps all."""

_LARGEST_INT8 = 127


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedMatrix:
    """A [K, N] matrix as the kernels read it.

    Attributes:
        packed: As `model.kernels.pack_int8`, `pack_bf16` or `pack_f32` lays it out.
        scale: float32[N] for int8; else None.
        columns: N.
    """

    packed: jax.Array
    scale: jax.Array | None
    columns: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, matrix: jax.Array, form: WeightForm) -> PackedMatrix:
        """Pack float[K, N] weights."""
        if form == "int8":
            values, scale = quantize_columns(matrix)
            return cls(kernels.pack_int8(values), scale, matrix.shape[1])
        pack = kernels.pack_bf16 if form == "bfloat16" else kernels.pack_f32
        return cls(pack(matrix.astype(form)), None, matrix.shape[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        """float32[M, N] of float32[M, K]."""
        if self.scale is not None:
            return kernels.int8_matmul(x, self.packed, self.scale)
        product = kernels.f32_matmul if self.is_float32 else kernels.bf16_matmul
        return product(x, self.packed, self.columns)

    @property
    def is_float32(self) -> bool:
        """Whether it has every bit of the weights, so that `take_columns` gives them back."""
        return bool(self.packed.dtype == jnp.float32)

    def take_columns(self, indices: jax.Array) -> jax.Array:
        """float32[..., K]: the columns of a float32 matrix that int32[...] names."""
        panels, places = jnp.divmod(indices, kernels.PANEL_COLUMNS)
        columns: jax.Array = self.packed[panels, :, places, 0]
        return columns


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

    def weights(self) -> kernels.BlockWeights:
        """The same for `model.kernels`."""
        return kernels.BlockWeights(
            norm_scale=self.norm_scale,
            norm_bias=self.norm_bias,
            query_norm=self.query_norm,
            key_norm=self.key_norm,
            into=self.into.packed,
            into_scale=self.into.scale,
            out=self.out.packed,
            out_scale=self.out.scale,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedParams:
    """A whole model's weights.

    Attributes:
        embedding: float32[V, D]; None where it is the head's columns, to the bit.
        layers: The blocks.
        norm_scale: float32[D], of the final norm.
        norm_bias: float32[D], where the config has one.
        head: [D, V].
        turns: float32[max_seq_len, 2, H], the rotary angles of every position as
            `model.kernels.rotary_turns` gives them.
    """

    embedding: jax.Array | None
    layers: list[FusedBlock]
    norm_scale: jax.Array
    norm_bias: jax.Array | None
    head: PackedMatrix
    turns: jax.Array

    def embed(self, tokens: jax.Array) -> jax.Array:
        """float32[..., D] of int32[...] tokens."""
        if self.embedding is None:
            return self.head.take_columns(tokens)
        return jnp.take(self.embedding, tokens, axis=0)


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
    head = PackedMatrix.of(jnp.asarray(table).T, form)
    is_in_head = config.tied_embeddings and head.is_float32
    layers = params["layers"]
    return FusedParams(
        embedding=None if is_in_head else _float32(params["embedding"]),
        layers=[block(layers[str(index)]) for index in range(config.num_layers)],
        norm_scale=_float32(params["final_norm"]["scale"]),
        norm_bias=_optional(params["final_norm"].get("bias")),
        head=head,
        turns=_rotary_turns(config),
    )


def _rotary_turns(config: PaLMConfig) -> jax.Array:
    positions = jnp.arange(config.max_seq_len, dtype=jnp.int32)[None]
    cos, sin = rotary_angles(positions, config.head_dim, config.rope_theta)
    return kernels.rotary_turns((cos[0], sin[0]), has_half_pairs=config.rope_style == "half")


def fused_step(
    config: PaLMConfig,
    params: FusedParams,
    tokens: jax.Array,
    start: jax.Array,
    cache: KVCache,
    pages: jax.Array,
) -> tuple[jax.Array, KVCache]:
    """What `model.palm.forward_step` does; the arguments are the same but for `params`."""
    form = kernels.BlockForm(
        num_heads=config.num_heads,
        d_ff=config.d_ff,
        is_gated=config.gated,
        is_gelu=config.activation == "gelu",
        has_half_pairs=config.rope_style == "half",
        norm_eps=config.norm_eps,
    )
    return kernels.run_blocks(
        params.embed(tokens),
        [block.weights() for block in params.layers],
        cache,
        (params.norm_scale, params.norm_bias),
        params.turns,
        pages,
        start,
        form=form,
    )


def fused_unembed(config: PaLMConfig, params: FusedParams, hidden: jax.Array) -> jax.Array:
    """float32[M, V] logits of final-normed hidden states [M, D]."""
    return params.head(hidden * jnp.float32(config.resolved_logit_scale))


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
