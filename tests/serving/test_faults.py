"""Logits that are not finite, as a damaged checkpoint or an overflow would make them."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest

from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.runner import Runner
from tests.serving.conftest import CONTEXT
from tests.serving.stepping import Driver, request, run_alone

BROKEN = 77
"""The token whose embedding is not a number."""


@pytest.fixture(scope="module")
def core(pretrained, tokenizer):
    embedding = pretrained.params["embedding"]
    config = dataclasses.replace(pretrained.config, tied_embeddings=False)
    broken = embedding.at[BROKEN].set(jnp.nan)
    params = {**pretrained.params, "embedding": broken, "head": embedding}
    model = LanguageModel.of_palm("broken", config, params, "float32")
    engine = EngineConfig(
        max_slots=2, prefill_buckets=(16,), smallest_key_bucket=CONTEXT, token_budget=18
    )
    runner = Runner(model, engine)
    runner.make_ready()
    return EngineCore(runner, tokenizer, engine)


def test_end_the_request_with_an_error(core, caplog):
    output = run_alone(core, request(prompt=(30, BROKEN, 31), max_tokens=4))
    assert (output.finish_reason, output.token_ids) == ("error", ())
    assert "request a: the logits are not finite" in caplog.text


def test_do_not_reach_a_neighbour(core):
    alone = run_alone(core, request(prompt=(30, 31), max_tokens=8, logprobs=2))
    driver = Driver(core)
    driver.submit(request(prompt=(30, 31), max_tokens=8, logprobs=2))
    driver.submit(request("bad", prompt=(BROKEN,) * 20, max_tokens=4))
    driver.run()
    assert driver.output("a") == alone
    assert driver.output("bad").finish_reason == "error"


def test_do_not_reach_the_slots_next_request(core):
    before = run_alone(core, request(prompt=(30, 31), max_tokens=8, logprobs=2))
    run_alone(core, request("bad", prompt=(BROKEN,) * 20, max_tokens=4))
    after = run_alone(core, request(prompt=(30, 31), max_tokens=8, logprobs=2))
    assert before == after
    assert before.finish_reason == "length"
