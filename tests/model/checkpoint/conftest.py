"""Small models with random weights, norms included."""

import dataclasses
from pathlib import Path

import jax
import pytest

from model.checkpoint import Pretrained
from model.config import PaLMConfig
from model.palm import init_parameters
from model.parameters import Params, flatten, unflatten


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
