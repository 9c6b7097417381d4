"""FLOPs, bytes and hops of one step under a layout, after Pope et al. 2022 (arXiv 2211.05102).

Letters as in the paper: E = d_model, F = d_ff, n chips, X and YZ chips along the mesh. Every
function takes a model that `model.padding.pad_config` has padded, and answers for one chip.
"""

from __future__ import annotations

import math

from model.config import PaLMConfig
from model.layout_rules import Layout, Rules, activation_rules, used_weight_rules
from model.parameters import declare_parameters
from serving.layout import MeshShape, split
from serving.workload import BYTES_PER_WEIGHT, Workload

ACTIVATION_BYTES = 2
"""Bytes of an activation, a key or a value: bfloat16."""

_SCORE_BYTES = 4
# Queries that attention scores at once (`model.attention`).
_QUERY_BLOCK = 128


def held_parameters(padded: PaLMConfig, rules: Rules, mesh: MeshShape) -> float:
    """Parameters on one chip, split as `rules` say."""
    return sum(
        spec.size / math.prod(mesh.parts(rules[axis]) for axis in spec.axes)
        for spec in declare_parameters(padded).values()
    )


def flops(padded: PaLMConfig, layout: Layout, mesh: MeshShape, workload: Workload) -> float:
    """FLOPs of one chip in a step: the products, attention, and logits of the last position."""
    rules, tokens = activation_rules(layout), workload.tokens
    # The key/value projection is not split over heads, for it has none to split.
    kv_width = 2 * padded.num_kv_heads * padded.head_dim
    kv_parts = mesh.parts(rules["model"]) * mesh.parts(rules["batch"])
    wide = padded.num_layers * padded.d_model * (_in_width(padded) + _out_width(padded))
    products = 2 * tokens * wide / mesh.chips
    key_values = 2 * tokens * padded.num_layers * padded.d_model * kv_width / kv_parts
    # In prefill a token sees half of the others on average.
    keys = workload.context / 2 if workload.phase == "prefill" else workload.context
    attention = 4 * tokens * padded.num_layers * padded.num_heads * padded.head_dim * keys
    attention /= split(workload.batch, rules["attention_batch"], mesh)
    attention /= mesh.parts(rules["attention_heads"])
    logits = 2 * workload.batch * padded.d_model * padded.vocab_size / mesh.chips
    return products + key_values + attention + logits


def communicated_activations(
    padded: PaLMConfig, layout: Layout, mesh: MeshShape, tokens: int
) -> float:
    """Numbers that one chip receives in a step for the activations of all layers.

    Section 3.2's volumes, for the widths that our block has: 1D 2·BL·E; 2D BL·(2·E/X + widths/YZ),
    which is 8·BL·E/sqrt(n) for two matrices with F = 4·E; gathered over N chips 2·BL·E/N. The
    paper's factor (K-1)/K of a collective over K chips is taken as 1, as there, and 0 at K = 1.
    """
    rules = activation_rules(layout)
    tokens_here = tokens / mesh.parts(rules["batch"])
    across = mesh.parts(rules["heads"])
    block = 0.0
    if across > 1:
        block += 2 * tokens_here * padded.d_model / mesh.parts(rules["model"])
    if mesh.parts(rules["model"]) > 1:
        kv_width = 2 * padded.num_kv_heads * padded.head_dim
        widths = (_in_width(padded) + _out_width(padded)) / across + kv_width
        block += tokens_here * widths
    if layout.attention == "batch" and across > 1:
        # Queries to the chips of their sequences, and attention's output back (section 3.3).
        block += 2 * tokens * padded.num_heads * padded.head_dim / mesh.chips
    return padded.num_layers * block


def hops_a_layer(layout: Layout, mesh: MeshShape) -> int:
    """Steps of a layer's collectives, one after the other, on rings along the mesh axes.

    Weights are gathered while others are in use, so all of a layer's count as one collective.
    """
    rules = activation_rules(layout)
    across = mesh.hops(rules["heads"])
    to_attention = 2 * across if layout.attention == "batch" else 0
    return (
        2 * across + 2 * mesh.hops(rules["model"]) + to_attention + mesh.hops(layout.gathered_axes)
    )


def activation_bytes(
    padded: PaLMConfig, layout: Layout, mesh: MeshShape, workload: Workload
) -> float:
    """The most bytes that one chip holds beside weights and cache, when a block is at its widest.

    Residual stream and block input, the feed-forward layer's and attention's inner values, one
    block of scores, the logits of the last position, and of gathered weights the two largest
    kernels: one in use and the next on its way.
    """
    rules, weights = activation_rules(layout), used_weight_rules(layout)
    tokens_here = workload.tokens / mesh.parts(rules["batch"])
    inner = 2 * padded.d_ff + 2 * padded.num_heads * padded.head_dim
    width = 2 * padded.d_model / mesh.parts(rules["model"]) + inner / mesh.parts(rules["ff"])
    queries = min(_QUERY_BLOCK, workload.tokens // workload.batch)
    sequences = workload.batch / split(workload.batch, rules["attention_batch"], mesh)
    heads = padded.num_heads / mesh.parts(rules["attention_heads"])
    scores = sequences * heads * queries * workload.context
    logits = workload.batch * padded.vocab_size / mesh.parts(weights["vocab"])
    gathered = 0.0
    if layout.gathered_axes:
        gathered = 2 * padded.d_model * padded.d_ff / mesh.parts(weights["ff"])
    return (
        tokens_here * width * ACTIVATION_BYTES
        + (scores + logits) * _SCORE_BYTES
        + gathered * BYTES_PER_WEIGHT[workload.weights]
    )


def _in_width(config: PaLMConfig) -> int:
    """Columns of a block's input projections that heads or feed-forward width split."""
    return config.d_ff * (2 if config.gated else 1) + config.num_heads * config.head_dim


def _out_width(config: PaLMConfig) -> int:
    """Rows of a block's output projections."""
    return config.d_ff + config.num_heads * config.head_dim
