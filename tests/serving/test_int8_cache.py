"""An int8 cache shares prefixes, gives pages up and keeps requests apart as any other does."""

from __future__ import annotations

import dataclasses

import pytest

from model.checkpoint import Pretrained
from model.tokenizer import SentencePieceTokenizer
from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.request import GenerationRequest
from serving.runner import Runner
from tests.serving.conftest import ENGINE
from tests.serving.stepping import Driver, request, run_alone


@pytest.fixture(scope="module", params=["none", "auto"])
def runner(request: pytest.FixtureRequest, pretrained: Pretrained) -> Runner:
    """With XLA's operations, and with the kernels where there are any."""
    model = LanguageModel.of_palm(
        "tiny", pretrained.config, pretrained.params, "float32", request.param
    )
    runner = Runner(model, dataclasses.replace(ENGINE, kv_dtype="int8"))
    runner.make_ready()
    return runner


def core(runner: Runner, tokenizer: SentencePieceTokenizer, **changes: object) -> EngineCore:
    config: EngineConfig = dataclasses.replace(ENGINE, kv_dtype="int8", **changes)
    return EngineCore(runner, tokenizer, config)


def asked() -> list[GenerationRequest]:
    """Three requests, two of which begin with the same two pages."""
    shared = tuple(range(30, 39))
    return [
        request("a", shared, max_tokens=8),
        request("b", (*shared, 40, 41), max_tokens=9, logprobs=2),
        request("c", (50, 51), max_tokens=7, temperature=0.9, seed=3),
    ]


def test_steps_round_alike_however_prompts_are_cut(runner: Runner) -> None:
    assert runner.is_batch_invariant
    assert runner.is_chunk_invariant


def test_a_request_gives_the_same_alone_in_company_and_with_its_prefix_found(
    runner: Runner, tokenizer: SentencePieceTokenizer
) -> None:
    alone = [run_alone(core(runner, tokenizer), each) for each in asked()]
    together = core(runner, tokenizer)
    driver = Driver(together)
    for _ in range(2):
        for each in asked():
            driver.submit(each)
        driver.run()
        assert [driver.output(each.request_id) for each in asked()] == alone
        driver.deltas.clear()
    assert together.stats().cached_tokens_total > 0


def test_a_request_that_gives_its_pages_up_ends_with_the_same_tokens(
    runner: Runner, tokenizer: SentencePieceTokenizer
) -> None:
    alone = [run_alone(core(runner, tokenizer), each).token_ids for each in asked()]
    scarce = core(runner, tokenizer, kv_pages=16, use_prefix_cache=False)
    many = [
        dataclasses.replace(each, params=dataclasses.replace(each.params, max_tokens=40))
        for each in asked()
    ]
    driver = Driver(scarce)
    for each in many:
        driver.submit(each)
    driver.run()
    assert scarce.stats().preemptions_total > 0
    for each, tokens in zip(asked(), alone, strict=True):
        assert driver.output(each.request_id).token_ids[: len(tokens)] == tokens
