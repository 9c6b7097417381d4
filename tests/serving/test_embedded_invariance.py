"""The shipped model at its real size: tokens alone, and among requests that come and go."""

from __future__ import annotations

import random

import pytest

from model.checkpoint import load_pretrained, resolve_model
from model.fused import FusedParams
from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.request import GenerationRequest, SamplingParams
from serving.runner import Runner
from tests.serving.stepping import Driver, run_alone

ENGINE = EngineConfig(
    max_slots=8,
    max_model_len=256,
    prefill_buckets=(64,),
    smallest_key_bucket=128,
    token_budget=128,
    fail_on_recompilation=True,
)
TEXTS = (
    "It was the best of times, it was the worst of times, it was the age of wisdom,",
    "Once upon a time there was a king who had three daughters.",
    '"Where are you going?" said the old man, and',
    "The",
)


@pytest.fixture(scope="module", params=["none", "int8"])
def core(request: pytest.FixtureRequest) -> EngineCore:
    pretrained = load_pretrained(resolve_model("talipot-tiny"))
    model = LanguageModel.of_palm(
        "tiny", pretrained.config, pretrained.params, "float32", request.param
    )
    runner = Runner(model, ENGINE)
    runner.make_ready()
    return EngineCore(runner, pretrained.tokenizer, ENGINE)


def requests(core: EngineCore, rng: random.Random) -> list[GenerationRequest]:
    """Prompts of 1 to 130 tokens, half of them greedy."""
    assert core.tokenizer is not None
    prompts = [core.tokenizer.encode(text * 4) for text in TEXTS]
    found = []
    for index in range(24):
        prompt = rng.choice(prompts)
        params = SamplingParams(
            max_tokens=rng.randint(1, 100),
            temperature=rng.choice([0.0, 0.8]),
            top_p=rng.choice([1.0, 0.95]),
            repetition_penalty=rng.choice([1.0, 1.2]),
            seed=index,
            ignore_eos=True,
            logprobs=rng.choice([None, 2]),
        )
        length = rng.randint(1, min(len(prompt), 130))
        found.append(
            GenerationRequest(
                request_id=f"r{index}", prompt_token_ids=tuple(prompt[:length]), params=params
            )
        )
    return found


def test_every_shape_rounds_alike(core):
    assert core.stats().is_batch_invariant
    if isinstance(core.runner.model.params, FusedParams):
        # The kernels promise more: no shape is dropped, and prompts may be cut anywhere.
        assert core.runner.decode_shapes == sorted(core.runner.programs.decode)
        assert core.stats().is_chunk_invariant


def test_random_arrivals_change_no_bit(core):
    rng = random.Random(5)
    asked = requests(core, rng)
    driver = Driver(core)
    for each in asked:
        driver.submit(each)
        for _ in range(rng.randint(0, 12)):
            driver.step()
    driver.run()
    for each in asked:
        assert driver.output(each.request_id) == run_alone(core, each)
