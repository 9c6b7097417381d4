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
from serving.config import Quantize

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
        pages: jax.Array,
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
    """

    name: str
    vocab_size: int
    max_seq_len: int
    params: Any
    init_cache: Callable[[int, int, DTypeLike], Cache]
    forward_step: ForwardStep
    unembed: Callable[[Any, jax.Array], jax.Array]
    weights: str = "float32"

    @classmethod
    def of_palm(
        cls, name: str, config: PaLMConfig, params: Any, dtype: str, quantize: Quantize = "none"
    ) -> LanguageModel:
        """A PaLM with its weights in `dtype`, or quantized.

        Raises:
            ConfigError: It cannot be quantized, or not here; the message says why.
        """
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


def weight_form(config: PaLMConfig, dtype: str, quantize: Quantize) -> WeightForm | None:
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
    return "bfloat16" if dtype == "bfloat16" else None


def _obstacle(config: PaLMConfig) -> str | None:
    """Why the CPU kernels cannot run a model; None if they can."""
    if jax.default_backend() != "cpu":
        return f"its kernels are for CPUs, and this is {jax.default_backend()!r}"
    if not kernels.is_available():
        return str(kernels.status().reason)
    if not can_fuse(config):
        return "this model's blocks have two norms"
    return None
