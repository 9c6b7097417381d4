"""Small models with random weights, norms included, and a small real tokenizer."""

import dataclasses
from pathlib import Path

import jax
import pytest

from model.checkpoint import Pretrained
from model.config import PaLMConfig
from model.palm import init_parameters
from model.parameters import Params, flatten, unflatten
from model.tokenizer import SentencePieceTokenizer
from model.training.tokenizer import train_sentencepiece

TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom. "
    "The little mermaid swam up to the castle, and the prince walked along the shore.\n\n"
    "In 1859 there were 1203 horses, 45 kings and  two   queens -- so they say ...\n"
)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> SentencePieceTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_sentencepiece([TEXT * 20], vocab_size=400, out=path)
    return SentencePieceTokenizer.from_file(path)


@pytest.fixture(scope="session")
def palm() -> PaLMConfig:
    """PaLM in small: one key/value head, tied embeddings, scaled logits."""
    return PaLMConfig(
        name="small-palm",
        vocab_size=400,
        num_layers=2,
        d_model=32,
        num_heads=4,
        head_dim=8,
        d_ff=48,
        max_seq_len=128,
    )


def random_parameters(config: PaLMConfig) -> Params:
    """Random weights; norm scales and biases too, which initialisation would leave at 1 and 0."""
    flat = flatten(init_parameters(config, jax.random.key(7)))
    for index, name in enumerate(sorted(flat)):
        if "norm" in name:
            noise = jax.random.normal(jax.random.key(index), flat[name].shape)
            flat[name] = flat[name] + 0.3 * noise
    return unflatten(flat)


@pytest.fixture
def make_model(tokenizer):
    """Make a `Pretrained` of a config, with the tokenizer unless told otherwise."""

    def make(config: PaLMConfig, with_tokenizer: bool = True, **changes) -> Pretrained:
        config = dataclasses.replace(config, **changes)
        return Pretrained(
            name=config.name,
            config=config,
            params=random_parameters(config),
            tokenizer=tokenizer if with_tokenizer else None,
        )

    return make


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "model"
