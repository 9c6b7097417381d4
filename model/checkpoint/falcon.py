"""Falcon (`model_type` `falcon`): 7B, with one key/value head; 40B and 11B, with several.

Parallel blocks like PaLM's, with LayerNorm biases and an ungated GELU layer. Falcon 40B has a norm
of its own for each branch. The oldest models (1B, with ALiBi or sequential blocks) are refused.
"""

from __future__ import annotations

from typing import Any

from model.checkpoint.config_keys import ConfigKeys
from model.checkpoint.layout import (
    Layout,
    StoredTensor,
    grouped_query_key_value,
    heads_in,
    linear,
    unchanged,
)
from model.config import PaLMConfig


def read_config(keys: ConfigKeys, name: str) -> PaLMConfig:
    """Our config from theirs.

    Raises:
        CheckpointError: A key has a value that the forward pass does not cover.
        ConfigError: The values do not fit together.
    """
    d_model, num_heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    if d_model % num_heads:
        keys.reject("hidden_size", d_model, f"a multiple of num_attention_heads={num_heads}")
    is_new = keys.boolean("new_decoder_architecture", default=False)
    if not keys.boolean("parallel_attn", default=True):
        keys.reject("parallel_attn", False, "true: sequential blocks are not supported")
    activation: Any = keys.choice("activation", {"gelu": "gelu"}, "gelu")
    config = PaLMConfig(
        name=name,
        vocab_size=keys.integer("vocab_size"),
        num_layers=keys.integer("num_hidden_layers"),
        d_model=d_model,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(keys, num_heads, is_new),
        head_dim=d_model // num_heads,
        d_ff=keys.integer("ffn_hidden_size", 4 * d_model),
        max_seq_len=keys.integer("max_position_embeddings", 2048),
        norm_eps=keys.number("layer_norm_epsilon", 1e-5),
        norm_bias=True,
        separate_mlp_norm=_num_norms(keys, is_new) == 2,
        activation=activation,
        gated=False,
        rope_theta=keys.rope_theta(default=10_000.0),
        rope_style="half",
        tied_embeddings=keys.boolean("tie_word_embeddings", default=True),
        logit_scale=1.0,
    )
    keys.finish()
    return config


def _num_kv_heads(keys: ConfigKeys, num_heads: int, is_new: bool) -> int:
    stated = keys.integer("num_kv_heads", num_heads)
    is_multi_query = keys.boolean("multi_query", default=True)
    if is_new:
        return stated
    if is_multi_query:
        # `num_kv_heads` is not looked at then; transformers writes num_attention_heads there.
        return 1
    if stated != num_heads:
        keys.reject("num_kv_heads", stated, f"num_attention_heads={num_heads}")
    return num_heads


def _num_norms(keys: ConfigKeys, is_new: bool) -> int:
    count = keys.integer("num_ln_in_parallel_attn", 2 if is_new else 1)
    if count > (2 if is_new else 1):
        keys.reject("num_ln_in_parallel_attn", count, "1 or 2" if is_new else "1")
    return count


def write_config(config: PaLMConfig) -> dict[str, Any]:
    """Their config from ours."""
    values: dict[str, Any] = {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "new_decoder_architecture": _needs_new_architecture(config),
        "multi_query": config.num_kv_heads == 1,
        "parallel_attn": True,
        "alibi": False,
        "bias": False,
        "ffn_hidden_size": config.d_ff,
        "max_position_embeddings": config.max_seq_len,
        "layer_norm_epsilon": config.norm_eps,
        "activation": config.activation,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied_embeddings,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "use_cache": True,
    }
    if _needs_new_architecture(config):
        values["num_ln_in_parallel_attn"] = 2 if config.separate_mlp_norm else 1
    return values


def _needs_new_architecture(config: PaLMConfig) -> bool:
    return config.separate_mlp_norm or config.num_kv_heads not in (1, config.num_heads)


def obstacles(config: PaLMConfig) -> list[str]:
    """Why `config` cannot be written as this family; empty when it can."""
    checks = {
        "norm_bias=False (its norms have a bias)": not config.norm_bias,
        "gated=True (its feed-forward layer is not gated)": config.gated,
        f"activation={config.activation!r} (it has GELU)": config.activation != "gelu",
        "rope_style='interleaved' (its RoPE is split in halves)": config.rope_style != "half",
        "qk_norm=True (it has none)": config.qk_norm,
        f"num_heads·head_dim={config.num_heads * config.head_dim} (it is d_model there)": (
            config.num_heads * config.head_dim != config.d_model
        ),
        f"logit_scale={config.resolved_logit_scale} (it is 1 there)": (
            config.resolved_logit_scale != 1
        ),
    }
    return [reason for reason, blocks in checks.items() if blocks]


def layout(config: PaLMConfig) -> Layout:
    """Every tensor of such a checkpoint."""
    d_model, d_ff, head_dim = config.d_model, config.d_ff, config.head_dim
    table = (config.vocab_size, d_model)
    tensors: dict[str, StoredTensor] = {
        "transformer.word_embeddings.weight": unchanged("embedding", table),
        **_norm("transformer.ln_f", "final_norm", d_model),
    }
    if not config.tied_embeddings:
        tensors["lm_head.weight"] = unchanged("head", table)
    for index in range(config.num_layers):
        theirs, ours = f"transformer.h.{index}", f"layers.{index}"
        attention = f"{ours}.attention"
        if config.separate_mlp_norm:
            tensors |= _norm(f"{theirs}.ln_attn", f"{ours}.norm", d_model)
            tensors |= _norm(f"{theirs}.ln_mlp", f"{ours}.mlp_norm", d_model)
        else:
            tensors |= _norm(f"{theirs}.input_layernorm", f"{ours}.norm", d_model)
        tensors |= {
            f"{theirs}.self_attention.query_key_value.weight": grouped_query_key_value(
                (f"{attention}.query", f"{attention}.key", f"{attention}.value"),
                d_model,
                config.num_heads,
                config.num_kv_heads,
                head_dim,
            ),
            f"{theirs}.self_attention.dense.weight": heads_in(
                f"{attention}.out", config.num_heads, head_dim, d_model
            ),
            f"{theirs}.mlp.dense_h_to_4h.weight": linear(f"{ours}.mlp.up", d_model, d_ff),
            f"{theirs}.mlp.dense_4h_to_h.weight": linear(f"{ours}.mlp.down", d_ff, d_model),
        }
    return tensors


def _norm(theirs: str, ours: str, d_model: int) -> dict[str, StoredTensor]:
    return {
        f"{theirs}.weight": unchanged(f"{ours}.scale", (d_model,)),
        f"{theirs}.bias": unchanged(f"{ours}.bias", (d_model,)),
    }
