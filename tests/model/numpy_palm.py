"""The decoder once more in float64 NumPy, written from the papers with none of the model's code.

It goes head by head and position by position, rotates with complex numbers and never masks: a
query is only shown the keys that it may see.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import PaLMConfig

Array = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def random_weights(config: PaLMConfig, seed: int) -> dict[str, Any]:
    """Nested float32 weights; norm scales and biases too, which fresh ones leave at 1 and 0."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, fan_in: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * fan_in**-0.5).astype(np.float32)

    def scale(*shape: int) -> NDArray[np.float32]:
        return (1 + 0.3 * rng.standard_normal(shape)).astype(np.float32)

    def norm() -> dict[str, Any]:
        made: dict[str, Any] = {"scale": scale(config.d_model)}
        if config.norm_bias:
            made["bias"] = 0.3 * draw(config.d_model, fan_in=1)
        return made

    def block() -> dict[str, Any]:
        width, heads, kv_heads = config.d_model, config.num_heads, config.num_kv_heads
        attention = {
            "query": draw(width, heads, config.head_dim, fan_in=width),
            "key": draw(width, kv_heads, config.head_dim, fan_in=width),
            "value": draw(width, kv_heads, config.head_dim, fan_in=width),
            "out": draw(heads, config.head_dim, width, fan_in=heads * config.head_dim),
        }
        if config.qk_norm:
            attention["query_norm"] = scale(heads, config.head_dim)
            attention["key_norm"] = scale(kv_heads, config.head_dim)
        mlp = {
            "up": draw(width, config.d_ff, fan_in=width),
            "down": draw(config.d_ff, width, fan_in=config.d_ff),
        }
        if config.gated:
            mlp["gate"] = draw(width, config.d_ff, fan_in=width)
        made: dict[str, Any] = {"norm": norm(), "attention": attention, "mlp": mlp}
        if config.separate_mlp_norm:
            made["mlp_norm"] = norm()
        return made

    weights: dict[str, Any] = {
        "embedding": draw(config.vocab_size, config.d_model, fan_in=1),
        "layers": {str(index): block() for index in range(config.num_layers)},
        "final_norm": norm(),
    }
    if not config.tied_embeddings:
        weights["head"] = draw(config.vocab_size, config.d_model, fan_in=config.d_model)
    return weights


def logits(config: PaLMConfig, weights: dict[str, Any], tokens: NDArray[np.int32]) -> Array:
    """float64[B, T, V] of int[B, T]."""
    return np.stack([_sequence_logits(config, weights, row) for row in tokens])


def _sequence_logits(config: PaLMConfig, weights: dict[str, Any], tokens: Any) -> Array:
    table = weights["embedding"].astype(np.float64)
    x = table[tokens]
    for index in range(config.num_layers):
        layer = weights["layers"][str(index)]
        attended = _norm(x, layer["norm"], config)
        fed = _norm(x, layer["mlp_norm"], config) if config.separate_mlp_norm else attended
        x = x + _attention(attended, layer["attention"], config) + _mlp(fed, layer["mlp"], config)
    x = _norm(x, weights["final_norm"], config)
    head = table if config.tied_embeddings else weights["head"].astype(np.float64)
    scale = 1 / math.sqrt(config.d_model) if config.logit_scale is None else config.logit_scale
    return x @ head.T * scale


def _norm(x: Array, norm: dict[str, Any], config: PaLMConfig) -> Array:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.norm_eps)
    return normed * norm["scale"] + norm.get("bias", 0.0)


def _rotate(vector: Array, position: int, config: PaLMConfig) -> Array:
    half = config.head_dim // 2
    turns = np.exp(1j * position * config.rope_theta ** (-2.0 * np.arange(half) / config.head_dim))
    if config.rope_style == "interleaved":
        turned = (vector[0::2] + 1j * vector[1::2]) * turns
        return np.stack([turned.real, turned.imag], axis=-1).reshape(-1)
    turned = (vector[:half] + 1j * vector[half:]) * turns
    return np.concatenate([turned.real, turned.imag])


def _attention(x: Array, weights: dict[str, Any], config: PaLMConfig) -> Array:
    length, shared_by = len(x), config.num_heads // config.num_kv_heads

    def heads_of(kind: str, head: int) -> Array:
        vectors = x @ weights[kind][:, head].astype(np.float64)
        if config.qk_norm and kind != "value":
            vectors = _norm(vectors, {"scale": weights[f"{kind}_norm"][head]}, config)
        if kind == "value":
            return vectors
        return np.stack([_rotate(vectors[t], t, config) for t in range(length)])

    out = np.zeros((length, config.d_model))
    for head in range(config.num_heads):
        queries = heads_of("query", head)
        keys, values = heads_of("key", head // shared_by), heads_of("value", head // shared_by)
        for t in range(length):
            scores = keys[: t + 1] @ queries[t] / math.sqrt(config.head_dim)
            shares = np.exp(scores - scores.max())
            mixed = (shares / shares.sum()) @ values[: t + 1]
            out[t] += mixed @ weights["out"][head].astype(np.float64)
    return out


def _mlp(x: Array, weights: dict[str, Any], config: PaLMConfig) -> Array:
    up = x @ weights["up"].astype(np.float64)
    gate = x @ weights["gate"].astype(np.float64) if config.gated else up
    if config.activation == "silu":
        activated = gate / (1 + np.exp(-gate))
    else:
        activated = gate * 0.5 * (1 + _erf(gate / math.sqrt(2)))
    return (activated * up if config.gated else activated) @ weights["down"].astype(np.float64)
