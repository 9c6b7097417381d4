"""The shape of a model: one frozen dataclass for PaLM and its relatives (Cohere, Falcon)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard, get_args

from model.errors import ConfigError

Activation = Literal["silu", "gelu"]
RopeStyle = Literal["interleaved", "half"]

_COUNTS = (
    "vocab_size",
    "num_layers",
    "d_model",
    "num_heads",
    "head_dim",
    "d_ff",
    "num_kv_heads",
    "max_seq_len",
)
_SWITCHES = ("norm_bias", "separate_mlp_norm", "gated", "qk_norm", "tied_embeddings")

# What float32 holds without rounding to zero or infinity: all the arithmetic is float32.
_SMALLEST, _LARGEST = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaLMConfig:
    """Hyper-parameters of a parallel-block decoder (PaLM, arXiv 2204.02311, section 2).

    The defaults are PaLM's choices; the other values are those of published relatives: Cohere's
    Command-R and Aya, and Falcon.

    Attributes:
        name: What the model is called.
        vocab_size: Number of token ids (V).
        num_layers: Number of blocks (L).
        d_model: Width of the residual stream (D).
        num_heads: Query heads (N).
        head_dim: Width of a head (H); even, since RoPE rotates pairs.
        num_kv_heads: Key/value heads (K), a divisor of `num_heads`; 1 is multi-query attention.
        d_ff: Width of the feed-forward layer (F).
        max_seq_len: Longest sequence in tokens.
        norm_eps: Added to the variance in LayerNorm.
        norm_bias: Whether LayerNorm has a bias beside its scale.
        separate_mlp_norm: Whether the feed-forward layer has a norm of its own (Falcon 40B).
        activation: `silu`, or the exact (erf) `gelu`.
        gated: Whether the feed-forward layer is gated (SwiGLU) or plain.
        rope_theta: Base of the rotary frequencies.
        rope_style: Whether a rotated pair is (2i, 2i+1) or (i, i + H/2).
        qk_norm: Whether queries and keys pass a per-head LayerNorm before RoPE.
        tied_embeddings: Whether the output head is the embedding matrix.
        logit_scale: Factor on the logits; None means d_model ** -0.5.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    name: str = "custom"
    vocab_size: int
    num_layers: int
    d_model: int
    num_heads: int
    head_dim: int
    d_ff: int
    num_kv_heads: int = 1
    max_seq_len: int = 2048
    norm_eps: float = 1e-5
    norm_bias: bool = False
    separate_mlp_norm: bool = False
    activation: Activation = "silu"
    gated: bool = True
    rope_theta: float = 10_000.0
    rope_style: RopeStyle = "interleaved"
    qk_norm: bool = False
    tied_embeddings: bool = True
    logit_scale: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"name={self.name!r} must be a string of at least one character")
        for field in _COUNTS:
            _check_count(field, getattr(self, field))
        for field in _SWITCHES:
            if type(getattr(self, field)) is not bool:
                raise ConfigError(f"{field}={getattr(self, field)!r} must be true or false")
        for field in ("norm_eps", "rope_theta", "logit_scale"):
            value = getattr(self, field)
            if value is not None or field != "logit_scale":
                # JSON may write 1e10 as an integer, which would overflow JAX's int32.
                object.__setattr__(self, field, _positive_float(field, value))
        _check_choice("activation", self.activation, get_args(Activation))
        _check_choice("rope_style", self.rope_style, get_args(RopeStyle))
        if self.head_dim % 2:
            raise ConfigError(f"head_dim={self.head_dim} must be even: RoPE rotates pairs")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}"
            )

    @property
    def resolved_logit_scale(self) -> float:
        """The factor on the logits, with PaLM's 1/sqrt(d_model) for None."""
        return self.d_model**-0.5 if self.logit_scale is None else self.logit_scale

    @property
    def num_parameters(self) -> int:
        """Number of trained scalars, as declared in `model.parameters`."""
        from model.parameters import count_parameters

        return count_parameters(self)

    @property
    def num_matmul_parameters(self) -> int:
        """Parameters that take part in a matrix product: every kernel and the output head."""
        attention = self.d_model * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        mlp = self.d_model * self.d_ff * (3 if self.gated else 2)
        return self.num_layers * (attention + mlp) + self.vocab_size * self.d_model

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """Bytes that one token takes in the key/value cache.

        At one byte a value, each head has a float32 scale beside it; see `model.kv_cache`.
        """
        head_bytes = self.head_dim * bytes_per_value + (4 if bytes_per_value == 1 else 0)
        return 2 * self.num_layers * self.num_kv_heads * head_bytes

    def forward_flops_per_token(self, context_tokens: int) -> float:
        """FLOPs of a forward pass for one token that sees `context_tokens` keys.

        Two per matrix parameter, and 4·L·N·H for each key it attends to (one multiply-add for the
        score, one for the weighted sum).
        """
        attention = 4 * self.num_layers * self.num_heads * self.head_dim * context_tokens
        return 2.0 * self.num_matmul_parameters + attention

    def training_flops_per_token(self, seq_len: int) -> float:
        """FLOPs of a training step per token: 6N + 12·L·H·Q·T (PaLM, appendix B)."""
        attention = 12 * self.num_layers * self.num_heads * self.head_dim * seq_len
        return 6.0 * self.num_parameters + attention

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PaLMConfig:
        """Build a config from `to_dict`'s output.

        Raises:
            ConfigError: A key is unknown, a required one is missing, or a value is out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"model config must be an object of keys and values, not {values!r}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields), key=repr)
        if unknown:
            raise ConfigError(f"unknown model config keys {unknown}; known: {sorted(fields)}")
        missing = sorted(
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and name not in values
        )
        if missing:
            raise ConfigError(f"model config lacks the keys {missing}")
        return cls(**dict(values))

    @classmethod
    def preset(cls, name: str) -> PaLMConfig:
        """A named shape: the paper's three (table 1) and the embedded default.

        Raises:
            ConfigError: No preset has that name.
        """
        if not isinstance(name, str) or name not in _PRESETS:
            raise ConfigError(f"preset={name!r} is unknown; known: {sorted(_PRESETS)}")
        return cls(name=name, **_PRESETS[name])


def _check_count(field: str, value: object) -> None:
    # A bool is an int to Python, and a float may be whole: neither is a count.
    if type(value) is not int or value < 1:
        raise ConfigError(f"{field}={value!r} must be an integer of at least 1")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive_float(field: str, value: object) -> float:
    if not _is_number(value) or not _SMALLEST <= value <= _LARGEST:
        raise ConfigError(
            f"{field}={value!r} must be a positive float32, from {_SMALLEST:.3g} to {_LARGEST:.3g}"
        )
    return float(value)


def _check_choice(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(f"{field}={value!r} must be one of {allowed}")


def _paper(num_layers: int, num_heads: int, d_model: int) -> dict[str, Any]:
    return {
        "vocab_size": 256_000,
        "num_layers": num_layers,
        "d_model": d_model,
        "num_heads": num_heads,
        "head_dim": 256,
        "d_ff": 4 * d_model,
    }


_PRESETS: dict[str, dict[str, Any]] = {
    "palm-8b": _paper(32, 16, 4096),
    "palm-62b": _paper(64, 32, 8192),
    "palm-540b": _paper(118, 48, 18432),
    "talipot-tiny": {
        "vocab_size": 8192,
        "num_layers": 6,
        "d_model": 256,
        "num_heads": 4,
        "head_dim": 64,
        "d_ff": 1024,
    },
}


def preset_names() -> tuple[str, ...]:
    """The names that `PaLMConfig.preset` knows."""
    return tuple(_PRESETS)
