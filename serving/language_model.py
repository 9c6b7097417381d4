"""The model as the engine sees it: functions on parameters, nothing of what is inside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from model import kernels
from model.config import PaLMConfig
from model.errors import ConfigError
from model.fused import WeightForm, can_fuse, fuse, fused_step, fused_unembed
from model.palm import forward_step, init_cache, unembed
from model.partition import place_parameters
from serving.config import Dtype, Quantize
from serving.page_tables import RowsByChip
from serving.sharded_model import ShardedPaLM
from serving.sharding import Sharding

if TYPE_CHECKING:
    from jax.typing import DTypeLike

Cache: TypeAlias = Any
"""A pytree of arrays [pages, page_size, ...]; donated to every program that writes it."""


class ForwardStep(Protocol):
    """Runs tokens against the cache; see `model.palm.forward_step`."""

    def __call__(
        self,
        params: Any,
        tokens: jax.Array,
        start: jax.Array,
        cache: Cache,
        pages: jax.Array | RowsByChip,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states [B, T, D] of int32[B, T] tokens, and the cache with them in it."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Parameters and the functions that use them.

    Attributes:
        name: What the model is called.
        vocab_size: Number of token ids.
        max_seq_len: Longest sequence in tokens.
        params: A pytree of arrays.
        init_cache: (pages, page_size, dtype) to an empty cache.
        forward_step: New tokens to hidden states.
        unembed: (params, hidden [M, D]) to logits float32[M, V].
        weights: What the products' weights are: float32, bfloat16 or int8.
        sharding: How parameters and cache are split over devices; None on one.
    """

    name: str
    vocab_size: int
    max_seq_len: int
    params: Any
    init_cache: Callable[[int, int, DTypeLike], Cache]
    forward_step: ForwardStep
    unembed: Callable[[Any, jax.Array], jax.Array]
    weights: str = "float32"
    sharding: Sharding | None = None

    @classmethod
    def of_palm(
        cls,
        name: str,
        config: PaLMConfig,
        params: Any,
        dtype: Dtype,
        quantize: Quantize = "none",
        sharding: Sharding | None = None,
    ) -> LanguageModel:
        """A PaLM with its weights in `dtype`, or quantized.

        Args:
            name: What it is called.
            config: Its shape.
            params: Its parameters, on one device, or placed as `sharding` says.
            dtype: float32 or bfloat16.
            quantize: See `EngineConfig`.
            sharding: How to split it over several devices; None runs it on one.

        Raises:
            ConfigError: It cannot be quantized, or not here, or not be split so; the message says
                why.
        """
        if sharding is not None:
            return cls._of_sharded_palm(name, config, params, dtype, quantize, sharding)
        form = weight_form(config, dtype, quantize)
        common: dict[str, Any] = {
            "name": name,
            "vocab_size": config.vocab_size,
            "max_seq_len": config.max_seq_len,
            "init_cache": functools.partial(init_cache, config),
            "weights": form or dtype,
        }
        if form is not None:
            return cls(
                **common,
                params=fuse(config, params, form),
                forward_step=functools.partial(fused_step, config),
                unembed=functools.partial(fused_unembed, config),
            )
        return cls(
            **common,
            params=jax.tree.map(lambda array: jnp.asarray(array, dtype), params),
            forward_step=functools.partial(forward_step, config),
            unembed=functools.partial(unembed, config),
        )

    @classmethod
    def _of_sharded_palm(
        cls,
        name: str,
        config: PaLMConfig,
        params: Any,
        dtype: Dtype,
        quantize: Quantize,
        sharding: Sharding,
    ) -> LanguageModel:
        if quantize == "int8":
            raise ConfigError(
                "quantize='int8' cannot be had: its kernels run on one device, and the mesh has "
                f"{sharding.mesh.size} (mesh=1,1,1 runs on one)"
            )
        placement, functions = sharding.placement, ShardedPaLM.of(config, sharding)
        cast = jax.tree.map(lambda array: array.astype(dtype), params)
        # Does nothing where the checkpoint was loaded so.
        _, placed = place_parameters(config, cast, placement.layout, placement.mesh)
        return cls(
            name=name,
            vocab_size=config.vocab_size,
            max_seq_len=config.max_seq_len,
            params=placed,
            init_cache=functions.init_cache,
            forward_step=functions.forward_step,
            unembed=functions.unembed,
            weights=dtype,
            sharding=sharding,
        )

    @property
    def page_chips(self) -> int:
        """Chips that have pages of their own; 1 where there is one pool for all requests."""
        return 1 if self.sharding is None else self.sharding.page_chips


def weight_form(config: PaLMConfig, dtype: Dtype, quantize: Quantize) -> WeightForm | None:
    """The form in which the CPU kernels take a model's weights; None where they do not run it.

    Raises:
        ConfigError: int8 is asked for and cannot be had.
    """
    obstacle = _obstacle(config)
    if quantize == "int8" and obstacle is not None:
        raise ConfigError(f"quantize='int8' cannot be had: {obstacle}")
    # Without vector instructions XLA's own products are the faster ones.
    if obstacle is not None or (quantize != "int8" and not kernels.status().is_fast):
        return None
    if quantize in ("int8", "auto"):
        return "int8"
    return dtype


def _obstacle(config: PaLMConfig) -> str | None:
    """Why the CPU kernels cannot run a model; None if they can."""
    if jax.default_backend() != "cpu":
        return f"its kernels are for CPUs, and this is {jax.default_backend()!r}"
    if not kernels.is_available():
        return str(kernels.status().reason)
    if not can_fuse(config):
        return "this model's blocks have two norms"
    return None
