"""Requests that avoid n-grams never end one with weights or a cache of 8 bits either."""

from __future__ import annotations

import dataclasses

import pytest

from model.checkpoint import Pretrained
from model.tokenizer import SentencePieceTokenizer
from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.runner import Runner
from tests.serving.conftest import ENGINE
from tests.serving.forbidding import filter_of
from tests.serving.test_avoidance import (
    NGRAM,
    avoid_what_begins_in_a_cached_prompt,
    say_without_repeating,
)


@pytest.fixture(scope="module", params=["weights", "cache"])
def config(request: pytest.FixtureRequest) -> EngineConfig:
    """What has 8 bits."""
    return dataclasses.replace(
        ENGINE,
        quantize="int8" if request.param == "weights" else "none",
        kv_dtype="int8" if request.param == "cache" else "auto",
    )


@pytest.fixture(scope="module")
def runner(config: EngineConfig, pretrained: Pretrained) -> Runner:
    model = LanguageModel.of_palm(
        "tiny", pretrained.config, pretrained.params, "float32", config.quantize
    )
    runner = Runner(model, config)
    runner.forbid(filter_of((), NGRAM))
    runner.make_ready()
    return runner


@pytest.mark.parametrize("pages", [None, 20])
def test_no_forbidden_ngram_is_ever_ended(
    runner: Runner, config: EngineConfig, tokenizer: SentencePieceTokenizer, pages: int | None
) -> None:
    """With shared prefixes, and with requests that give their pages up and are computed again."""
    core = EngineCore(runner, tokenizer, dataclasses.replace(config, kv_pages=pages))
    say_without_repeating(core)
    assert core.stats().cached_tokens_total > 0
    assert core.stats().preemptions_total > 0 or pages is None


def test_what_begins_in_a_cached_prompt_is_not_ended(
    runner: Runner, config: EngineConfig, tokenizer: SentencePieceTokenizer
) -> None:
    avoid_what_begins_in_a_cached_prompt(EngineCore(runner, tokenizer, config))
