"""The model as the engine sees it: functions on parameters, nothing of what is inside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from model.config import PaLMConfig
from model.palm import forward_step, init_cache, unembed

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
        unembed: (params, hidden [..., D]) to logits float32[..., V].
    """

    name: str
    vocab_size: int
    max_seq_len: int
    params: Any
    init_cache: Callable[[int, int, DTypeLike], Cache]
    forward_step: ForwardStep
    unembed: Callable[[Any, jax.Array], jax.Array]

    @classmethod
    def of_palm(cls, name: str, config: PaLMConfig, params: Any, dtype: str) -> LanguageModel:
        """A PaLM with its weights in `dtype`."""
        return cls(
            name=name,
            vocab_size=config.vocab_size,
            max_seq_len=config.max_seq_len,
            params=jax.tree.map(lambda array: jnp.asarray(array, dtype), params),
            init_cache=functools.partial(init_cache, config),
            forward_step=functools.partial(forward_step, config),
            unembed=functools.partial(unembed, config),
        )
