"""`talipot info`: what a model is and costs, from its config alone; nothing is allocated."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from model.config import PaLMConfig, preset_names
from model.errors import CheckpointError

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "int8": 1}
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_BINARY_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model's shape says about its cost.

    Attributes:
        config: The shape.
        weight_bytes: Bytes of all weights, by dtype.
        kv_bytes_per_token: Bytes of keys and values of one token, by dtype.
        forward_flops_per_token: FLOPs of a forward pass for a token at the end of a full context.
        training_flops_per_token: 6N + 12·L·H·Q·T (PaLM, appendix B) at full context.
    """

    config: PaLMConfig
    weight_bytes: dict[str, int]
    kv_bytes_per_token: dict[str, int]
    forward_flops_per_token: float
    training_flops_per_token: float

    @classmethod
    def of(cls, config: PaLMConfig) -> ModelFacts:
        """Work the figures out."""
        context = config.max_seq_len
        return cls(
            config=config,
            weight_bytes={
                dtype: config.num_parameters * size for dtype, size in BYTES_PER_VALUE.items()
            },
            kv_bytes_per_token={
                dtype: config.kv_bytes_per_token(size) for dtype, size in BYTES_PER_VALUE.items()
            },
            forward_flops_per_token=config.forward_flops_per_token(context),
            training_flops_per_token=config.training_flops_per_token(context),
        )

    def to_json(self) -> str:
        """All figures, for programs."""
        values: dict[str, Any] = dataclasses.asdict(self)
        values["num_parameters"] = self.config.num_parameters
        return json.dumps(values, indent=2)

    def render(self) -> RenderableType:
        """All figures, for people."""
        config = self.config
        total = config.num_parameters
        shape = _table(f"[bold]{config.name}[/bold]")
        shape.add_row("Parameters", f"{_short(total)}  ({total:,})")
        shape.add_row("Layers", f"{config.num_layers}, parallel attention and feed-forward")
        shape.add_row("Width", f"d_model {config.d_model:,}, d_ff {config.d_ff:,}")
        shape.add_row("Attention", _attention(config))
        shape.add_row("Vocabulary", f"{config.vocab_size:,} tokens")
        shape.add_row("Context", f"{config.max_seq_len:,} tokens")
        cost = _table("Cost")
        for dtype, size in self.weight_bytes.items():
            cost.add_row(f"Weights, {dtype}", f"{_binary(size)}  ({size:,} bytes)")
        for dtype, size in self.kv_bytes_per_token.items():
            full = size * config.max_seq_len
            cost.add_row(
                f"KV cache, {dtype}", f"{size:,} bytes a token, {_binary(full)} at full context"
            )
        context = f"at {config.max_seq_len:,} tokens of context"
        forward, training = self.forward_flops_per_token, self.training_flops_per_token
        cost.add_row("Forward", f"{_short(forward)}FLOP a token {context}")
        cost.add_row("Training", f"{_short(training)}FLOP a token {context}")
        return Group(shape, cost)


def read_model_config(name_or_path: str) -> PaLMConfig:
    """The shape of a preset, an embedded model or a checkpoint folder; reads no weights.

    Raises:
        CheckpointError: It is none of them, or its config is damaged or unsupported.
    """
    from model.checkpoint import embedded_names, load_config, resolve_model

    if name_or_path in preset_names() and name_or_path not in embedded_names():
        return PaLMConfig.preset(name_or_path)
    try:
        folder = resolve_model(name_or_path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; presets: {list(preset_names())}") from None
    return load_config(folder)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    return table


def _attention(config: PaLMConfig) -> str:
    kind = "grouped-query"
    if config.num_kv_heads == 1:
        kind = "multi-query"
    elif config.num_kv_heads == config.num_heads:
        kind = "multi-head"
    plural = "head" if config.num_kv_heads == 1 else "heads"
    return (
        f"{kind}: {config.num_heads} query heads, {config.num_kv_heads} key/value {plural} "
        f"of {config.head_dim}"
    )


def _short(value: float) -> str:
    for factor, unit in _UNITS:
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f} "


def _binary(size: float) -> str:
    for factor, unit in _BINARY_UNITS:
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size:.0f} bytes"
