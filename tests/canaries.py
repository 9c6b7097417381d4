"""Whether this machine computes what the tests take for granted, found out before they run.

Silently wrong results of XLA on CPUs have been reported for some shapes, and the kernels are built
wherever they run. So every session starts with one prompt through every way in which a model is
served: prompt chunks of each bucket and single tokens, weights in float32 and int8, cache in
float32 and int8. All of them must be near the whole forward pass in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model import kernels
from model.config import PaLMConfig
from model.palm import forward
from serving.config import EngineConfig
from serving.language_model import LanguageModel
from tests.model.numpy_palm import random_weights

CONFIG = PaLMConfig(
    name="canary",
    vocab_size=64,
    num_layers=1,
    d_model=64,
    num_heads=4,
    head_dim=16,
    d_ff=128,
    max_seq_len=512,
)
PAGE_SIZE = 8
BUCKETS = (8, 32)
"""Of prompt chunks; small, as compiling is what this check waits for."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to serve, and how far it may be off, as a share of the largest logit."""

    name: str
    settings: EngineConfig
    chunks: tuple[int, ...]
    limit: float


def ways() -> list[Way]:
    """All that this machine has."""
    plain = EngineConfig(quantize="none")
    found = [
        Way("float32", plain, BUCKETS, 1e-5),
        Way("int8 cache", dataclasses.replace(plain, kv_dtype="int8"), BUCKETS[:1], 0.02),
    ]
    if kernels.is_available():
        int8 = EngineConfig(quantize="int8")
        found += [
            Way("int8 weights", int8, BUCKETS, 0.06),
            Way(
                "int8 weights and cache", dataclasses.replace(int8, kv_dtype="int8"), BUCKETS, 0.06
            ),
        ]
    return found


def check_numerics() -> list[str]:
    """What is wrong, a line each; nothing if all is well."""
    params = random_weights(CONFIG, seed=0)
    length = 2 * max(BUCKETS)
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, length).astype(np.int32)
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(forward, static_argnums=0)(CONFIG, params, tokens[None])[0])
    peak = float(np.abs(expected).max())
    wrong = []
    for way in ways():
        logits = open_way(way, params)
        for chunk in (*way.chunks, 1):
            error = float(np.abs(logits(tokens, chunk) - expected).max()) / peak
            # Not `error > limit`: NaN is wrong too.
            if not error <= way.limit:
                wrong.append(
                    f"{way.name}, chunks of {chunk}: off by {error:.2g} of the largest logit, "
                    f"limit {way.limit:.2g}"
                )
    return wrong


def open_way(way: Way, params: Any) -> Callable[[np.ndarray, int], np.ndarray]:
    """A function of int32[T] tokens and a chunk length to float32[T, V].

    Chunks of 1 follow chunks of the smallest bucket, but for the last page.
    """
    settings = way.settings
    model = LanguageModel.of_palm("", CONFIG, params, settings.dtype, settings.quantize)
    pages = 1 + jnp.arange(2 * max(BUCKETS) // PAGE_SIZE, dtype=jnp.int32)[None]

    @jax.jit
    def step(params: Any, part: jax.Array, start: jax.Array, cache: Any) -> Any:
        hidden, cache = model.forward_step(params, part[None], start[None], cache, pages)
        return model.unembed(params, hidden[0]), cache

    def logits(tokens: np.ndarray, chunk: int) -> np.ndarray:
        cache = model.init_cache(1 + pages.size, PAGE_SIZE, settings.cache_dtype)
        lengths = [chunk] * (len(tokens) // chunk)
        if chunk == 1:
            lengths = [*[BUCKETS[0]] * (len(tokens) // BUCKETS[0] - 1), *[1] * BUCKETS[0]]
        found, at = [], 0
        for length in lengths:
            part, start = jnp.asarray(tokens[at : at + length]), jnp.int32(at)
            chunk_logits, cache = step(model.params, part, start, cache)
            found.append(np.asarray(chunk_logits))
            at += length
        return np.concatenate(found)

    return logits
