"""Bits per byte on held-out text: comparable across tokenizers and with compressors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from model.tokenizer import SentencePieceTokenizer
from model.training.data import Tokens, tokenize_file
from model.training.step import evaluate_step

if TYPE_CHECKING:
    from model.config import PaLMConfig
    from model.palm import Params
    from model.training.config import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Loss over a held-out text.

    Attributes:
        bits_per_byte: Total cross-entropy over the UTF-8 bytes that the tokens stand for.
        nats_per_token: Mean cross-entropy.
        tokens: Tokens predicted.
        bytes: Bytes they stand for.
    """

    bits_per_byte: float
    nats_per_token: float
    tokens: int
    bytes: int


def heldout_tokens(config: DataConfig) -> Tokens:
    """The held-out documents one after the other, int32[tokens]."""
    assert config.heldout is not None
    tokens, _ = tokenize_file(Path(config.heldout), Path(config.tokenizer), Path(config.cache_dir))
    return tokens


def evaluate(
    config: PaLMConfig,
    params: Params,
    tokens: Tokens,
    tokenizer_path: Path,
    *,
    seq_len: int,
    max_tokens: int | None = None,
    batch_size: int = 8,
) -> Evaluation:
    """Cross-entropy of `tokens` in windows of `seq_len`, each starting without context.

    With `max_tokens`, windows are taken evenly from the whole text. The end-of-document token
    stands for no byte, though its cost is counted.
    """
    tokenizer = SentencePieceTokenizer.from_file(tokenizer_path)
    widths = np.asarray([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    available = (len(tokens) - 1) // seq_len
    wanted = available if max_tokens is None else min(available, max(1, max_tokens // seq_len))
    chosen = np.linspace(0, available - 1, wanted).astype(int)
    nats, count, num_bytes = 0.0, 0, 0
    for first in range(0, wanted, batch_size):
        starts = chosen[first : first + batch_size] * seq_len
        windows = np.stack([tokens[start : start + seq_len + 1] for start in starts])
        padding = np.zeros((batch_size - len(starts), seq_len + 1), np.int32)
        losses = evaluate_step(
            params, jnp.asarray(np.concatenate([windows, padding])), config=config
        )
        nats += float(np.sum(np.asarray(losses[: len(starts)], np.float64)))
        count += len(starts) * seq_len
        num_bytes += int(widths[windows[:, 1:]].sum())
    return Evaluation(
        bits_per_byte=nats / math.log(2) / num_bytes,
        nats_per_token=nats / count,
        tokens=count,
        bytes=num_bytes,
    )
