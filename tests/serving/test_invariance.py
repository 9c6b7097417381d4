"""A request's tokens and logprobs are bit for bit the same alone or among any neighbours."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from model.tokenizer import SentencePieceTokenizer
from serving.core import EngineCore
from serving.output import GenerationOutput
from serving.request import GenerationRequest, SamplingParams
from serving.runner import Runner
from tests.serving.conftest import CONTEXT, ENGINE
from tests.serving.stepping import Driver, run_alone

FINITE = {"allow_nan": False, "allow_infinity": False}


def sampling(vocab_size: int) -> st.SearchStrategy[SamplingParams]:
    """Greedy and seeded sampling, with every adjustment now and then."""
    tokens = st.integers(0, vocab_size - 1)
    return st.builds(
        SamplingParams,
        max_tokens=st.integers(1, 12),
        temperature=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
        seed=st.integers(0, 5),
        top_k=st.sampled_from([0, 0, 5]),
        top_p=st.sampled_from([1.0, 1.0, 0.9]),
        min_p=st.sampled_from([0.0, 0.0, 0.05]),
        presence_penalty=st.sampled_from([0.0, 0.0, 1.5]),
        frequency_penalty=st.sampled_from([0.0, 0.0, -0.5]),
        repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
        logit_bias=st.dictionaries(tokens, st.floats(-5, 5, **FINITE), max_size=2),
        stop=st.sampled_from([(), (), ("e",), ("th", "st")]),
        ignore_eos=st.booleans(),
        logprobs=st.sampled_from([None, None, 0, 3]),
        prompt_logprobs=st.sampled_from([None, None, 2]),
    )


class Arrivals(RuleBasedStateMachine):
    """Requests arrive, are aborted and step in any order."""

    make_core: Callable[[], EngineCore]  # set by the test

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.core = self.make_core()
        self.driver = Driver(self.core)
        self.asked: dict[str, GenerationRequest] = {}
        self.aborted: set[str] = set()

    @rule(target=requests, data=st.data())
    def arrive(self, data: st.DataObject) -> str:
        vocab_size = self.core.vocab_size
        params = data.draw(sampling(vocab_size))
        longest = CONTEXT - params.max_tokens
        tokens = st.integers(3, vocab_size - 1)
        prompt = data.draw(st.lists(tokens, min_size=1, max_size=longest).map(tuple))
        priority = data.draw(st.integers(0, 1))
        request_id = f"r{len(self.asked)}"
        self.asked[request_id] = GenerationRequest(
            request_id=request_id, prompt_token_ids=prompt, params=params, priority=priority
        )
        self.driver.submit(self.asked[request_id])
        return request_id

    @rule(steps=st.integers(1, 4))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.driver.step()

    @rule(request_id=requests)
    def abort(self, request_id: str) -> None:
        sequence = self.core.find(request_id)
        if sequence is not None:
            self.core.abort(sequence)
            self.aborted.add(request_id)

    @invariant()
    def the_books_balance(self) -> None:
        stats = self.core.stats()
        ended = sum(1 for deltas in self.driver.deltas.values() if deltas[-1].finish_reason)
        assert stats.running <= ENGINE.max_slots
        assert stats.finished_total == ended
        assert stats.queued + stats.running <= len(self.asked) - ended
        assert stats.kv_tokens_used <= stats.kv_tokens_capacity

    def teardown(self) -> None:
        self.driver.run()
        assert set(self.driver.deltas) == set(self.asked)
        for request_id, asked in self.asked.items():
            self.compare(asked, self.driver.output(request_id))

    def compare(self, asked: GenerationRequest, found: GenerationOutput) -> None:
        alone = run_alone(self.core, asked)
        if asked.request_id in self.aborted and found.finish_reason == "abort":
            count = len(found.token_ids)
            assert found.token_ids == alone.token_ids[:count]
            assert (found.logprobs or ())[:count] == (alone.logprobs or ())[:count]
        else:
            assert found == alone


def test_random_arrivals_change_no_bit(runner: Runner, tokenizer: SentencePieceTokenizer) -> None:
    assert runner.is_batch_invariant
    make_core = staticmethod(functools.partial(EngineCore, runner, tokenizer, ENGINE))
    machine = type("Machine", (Arrivals,), {"make_core": make_core})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_full_batch_of_the_same_request_gives_the_same_tokens_in_every_row(
    core: EngineCore, temperature: float
) -> None:
    driver = Driver(core)
    params = SamplingParams(max_tokens=40, temperature=temperature, seed=3, ignore_eos=True)
    for index in range(ENGINE.max_slots):
        driver.submit(
            GenerationRequest(request_id=f"{index}", prompt_token_ids=(40, 41), params=params)
        )
        driver.step()  # so that they are at different positions
    driver.run()
    tokens = {driver.output(f"{index}").token_ids for index in range(ENGINE.max_slots)}
    assert len(tokens) == 1


def test_different_seeds_differ(core: EngineCore) -> None:
    tokens = set()
    for seed in range(4):
        params = SamplingParams(max_tokens=12, seed=seed, ignore_eos=True)
        asked = GenerationRequest(request_id="a", prompt_token_ids=(40,), params=params)
        tokens.add(run_alone(core, asked).token_ids)
    assert len(tokens) == 4
