"""One tiny model, compiled once for the session; every test steps it with books of its own."""

from __future__ import annotations

import jax
import pytest

from model.checkpoint import Pretrained
from model.config import PaLMConfig
from model.palm import init_parameters
from model.tokenizer import SentencePieceTokenizer
from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.runner import Runner

CONTEXT = 64
ENGINE = EngineConfig(
    max_slots=3,
    page_size=4,
    prefill_buckets=(8, 16),
    smallest_key_bucket=32,
    token_budget=24,
    mixed_prefill_tokens=8,
    max_queued_requests=64,
    fail_on_recompilation=True,
)


@pytest.fixture(scope="session")
def pretrained(tokenizer: SentencePieceTokenizer) -> Pretrained:
    """A PaLM with random weights."""
    config = PaLMConfig(
        name="tiny",
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        d_model=32,
        num_heads=2,
        head_dim=16,
        d_ff=64,
        max_seq_len=CONTEXT,
    )
    params = init_parameters(config, jax.random.key(0))
    return Pretrained(name=config.name, config=config, params=params, tokenizer=tokenizer)


@pytest.fixture(scope="session")
def language_model(pretrained: Pretrained) -> LanguageModel:
    return LanguageModel.of_palm("tiny", pretrained.config, pretrained.params, "float32")


@pytest.fixture(scope="session")
def runner(language_model: LanguageModel) -> Runner:
    runner = Runner(language_model, ENGINE)
    runner.make_ready()
    return runner


@pytest.fixture
def core(runner: Runner, tokenizer: SentencePieceTokenizer) -> EngineCore:
    return EngineCore(runner, tokenizer, ENGINE)
