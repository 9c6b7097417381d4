"""Cohere's Command-R family (`model_type` `cohere`), of which PaLM is a special case.

One key/value head, `logit_scale = d_model**-0.5` and no q/k norm make it PaLM's parallel block.
"""

from __future__ import annotations

from typing import Any

from model.checkpoint.config_keys import ConfigKeys
from model.checkpoint.layout import Layout, StoredTensor, heads_in, heads_out, linear, unchanged
from model.config import PaLMConfig

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu"}


def read_config(keys: ConfigKeys, name: str) -> PaLMConfig:
    """Our config from theirs.

    Raises:
        CheckpointError: A key has a value that the forward pass does not cover.
        ConfigError: The values do not fit together.
    """
    num_heads, d_model = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    activation: Any = keys.choice("hidden_act", _ACTIVATIONS, "silu")
    # Command-R was trained on 131,072 tokens and says so here; the other key says 8192.
    context = keys.integer("model_max_length", keys.integer("max_position_embeddings", 8192))
    config = PaLMConfig(
        name=name,
        vocab_size=keys.integer("vocab_size"),
        num_layers=keys.integer("num_hidden_layers"),
        d_model=d_model,
        num_heads=num_heads,
        num_kv_heads=keys.integer("num_key_value_heads", num_heads),
        head_dim=keys.integer("head_dim", d_model // num_heads),
        d_ff=keys.integer("intermediate_size"),
        max_seq_len=context,
        norm_eps=keys.number("layer_norm_eps", 1e-5),
        activation=activation,
        rope_theta=keys.rope_theta(default=None),
        rope_style="interleaved",
        qk_norm=keys.boolean("use_qk_norm", default=False),
        tied_embeddings=keys.boolean("tie_word_embeddings", default=True),
        logit_scale=keys.number("logit_scale", 0.0625),
    )
    keys.finish()
    return config


def write_config(config: PaLMConfig) -> dict[str, Any]:
    """Their config from ours."""
    return {
        "architectures": ["CohereForCausalLM"],
        "model_type": "cohere",
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_seq_len,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": config.activation,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "use_qk_norm": config.qk_norm,
        "tie_word_embeddings": config.tied_embeddings,
        "logit_scale": config.resolved_logit_scale,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
    }


def obstacles(config: PaLMConfig) -> list[str]:
    """Why `config` cannot be written as this family; empty when it can."""
    checks = {
        "norm_bias=True (its norms have no bias)": config.norm_bias,
        "separate_mlp_norm=True (one norm feeds both branches)": config.separate_mlp_norm,
        "gated=False (its feed-forward layer is gated)": not config.gated,
        "rope_style='half' (its RoPE is interleaved)": config.rope_style != "interleaved",
    }
    return [reason for reason, blocks in checks.items() if blocks]


def layout(config: PaLMConfig) -> Layout:
    """Every tensor of such a checkpoint."""
    d_model, head_dim, d_ff = config.d_model, config.head_dim, config.d_ff
    heads, kv_heads = config.num_heads, config.num_kv_heads
    table = (config.vocab_size, d_model)
    tensors: dict[str, StoredTensor] = {
        "model.embed_tokens.weight": unchanged("embedding", table),
        "model.norm.weight": unchanged("final_norm.scale", (d_model,)),
    }
    if not config.tied_embeddings:
        tensors["lm_head.weight"] = unchanged("head", table)
    for index in range(config.num_layers):
        theirs, ours = f"model.layers.{index}", f"layers.{index}"
        attention = f"{theirs}.self_attn"
        tensors |= {
            f"{theirs}.input_layernorm.weight": unchanged(f"{ours}.norm.scale", (d_model,)),
            f"{attention}.q_proj.weight": heads_out(
                f"{ours}.attention.query", d_model, heads, head_dim
            ),
            f"{attention}.k_proj.weight": heads_out(
                f"{ours}.attention.key", d_model, kv_heads, head_dim
            ),
            f"{attention}.v_proj.weight": heads_out(
                f"{ours}.attention.value", d_model, kv_heads, head_dim
            ),
            f"{attention}.o_proj.weight": heads_in(
                f"{ours}.attention.out", heads, head_dim, d_model
            ),
            f"{theirs}.mlp.gate_proj.weight": linear(f"{ours}.mlp.gate", d_model, d_ff),
            f"{theirs}.mlp.up_proj.weight": linear(f"{ours}.mlp.up", d_model, d_ff),
            f"{theirs}.mlp.down_proj.weight": linear(f"{ours}.mlp.down", d_ff, d_model),
        }
        if config.qk_norm:
            tensors |= {
                f"{attention}.q_norm.weight": unchanged(
                    f"{ours}.attention.query_norm", (heads, head_dim)
                ),
                f"{attention}.k_norm.weight": unchanged(
                    f"{ours}.attention.key_norm", (kv_heads, head_dim)
                ),
            }
    return tensors
