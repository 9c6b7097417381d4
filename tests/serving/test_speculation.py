"""Tokens with drafts are those without, bit for bit; and drafts are made where they pay alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest
from scipy import stats

from serving.core import EngineCore
from serving.runner import Runner
from serving.step_times import StepTimes
from tests.serving.conftest import ENGINE
from tests.serving.stepping import Driver, request, run_alone

CONFIG = dataclasses.replace(ENGINE, speculate="auto", draft_tokens=4)
LOOP = (30, 31, 32, 33) * 5
ROWS = (2, 3, 6, 8)
# Steps as they would be on a device that computes eight rows as fast as two, and one that does not.
FREE = dict.fromkeys(ROWS, 0.01)
DEAR = {rows: 0.01 * rows for rows in ROWS}


@pytest.fixture(scope="module")
def runner(language_model) -> Runner:
    runner = Runner(language_model, CONFIG)
    runner.make_ready()
    return runner


def times(synchronous: dict[int, float]) -> StepTimes:
    return StepTimes(pipelined=FREE, synchronous=synchronous)


class Eager(StepTimes):
    """Never learns that a test's steps take longer than it says."""

    def record(self, rows: int, stepping: object, seconds: float) -> None:
        pass


@pytest.fixture
def make_core(runner, tokenizer):
    def make(*, speculates: bool = True, **changes: int) -> EngineCore:
        core = EngineCore(runner, tokenizer, dataclasses.replace(CONFIG, **changes))
        core._speculator.times = Eager(pipelined=FREE, synchronous=FREE) if speculates else None
        return core

    return make


def test_the_warm_up_finds_that_drafts_are_exact_and_what_steps_take(runner):
    assert runner.step_times is not None
    assert runner.step_times.rows == ROWS
    assert all(seconds > 0 for seconds in runner.step_times.synchronous.values())


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        # A bias is an adjustment, so this never drafts; the model's own tokens would not repeat.
        {"temperature": 0.0, "logit_bias": {30: 100.0}},
        {"temperature": 0.02, "seed": 5},
        {"temperature": 1.0, "top_k": 2, "seed": 5},
        {"temperature": 1.0, "top_p": 0.2, "min_p": 0.01, "seed": 6},
        {"temperature": 0.0, "logprobs": 3},
        {"temperature": 0.0, "max_tokens": 17, "prompt_logprobs": 1},
        {"temperature": 0.0, "frequency_penalty": 1.0, "repetition_penalty": 1.2},
        {"temperature": 1.0, "min_tokens": 20, "seed": 7, "ignore_eos": False},
    ],
)
def test_tokens_text_and_logprobs_are_the_same(make_core, params):
    asked = request(prompt=LOOP, **{"max_tokens": 40, **params})
    assert run_alone(make_core(), asked) == run_alone(make_core(speculates=False), asked)


def test_a_loop_is_drafted_and_takes_fewer_steps(make_core):
    asked = request(prompt=LOOP, max_tokens=40)
    core, plain = make_core(), make_core(speculates=False)
    assert run_alone(core, asked) == run_alone(plain, asked)
    found = core.stats()
    assert found.drafted_tokens_total >= found.accepted_tokens_total > 10
    assert found.steps_total < plain.stats().steps_total
    assert plain.stats().drafted_tokens_total == 0


def test_penalties_bias_and_min_tokens_are_never_drafted(make_core):
    core = make_core()
    for params in ({"presence_penalty": 0.1}, {"logit_bias": {40: 1.0}}, {"min_tokens": 3}):
        run_alone(core, request(prompt=LOOP, max_tokens=40, **params))
    assert core.stats().drafted_tokens_total == 0


def test_a_stop_in_the_middle_of_a_draft_ends_there(make_core, tokenizer):
    free = run_alone(make_core(), request(prompt=LOOP, max_tokens=40))
    for index in range(20, 36, 5):
        text = tokenizer.decode(list(free.token_ids[index : index + 2]))
        for params in (
            {"stop_token_ids": (free.token_ids[index],)},
            {"stop": (text,)} if text else {},
            {"max_tokens": index},
        ):
            asked = request(prompt=LOOP, **{"max_tokens": 40, **params})
            core = make_core()
            assert run_alone(core, asked) == run_alone(make_core(speculates=False), asked)
            # Idle, so the books were balanced; what may be found again is what was said.
            again = request(prompt=LOOP + free.token_ids[:19], max_tokens=20)
            assert run_alone(core, again) == run_alone(make_core(speculates=False), again)


def test_many_at_once_that_come_and_go_give_what_each_gives_alone(make_core):
    asked = [
        request(
            f"{index}",
            prompt=tuple(itertools.islice(itertools.cycle(range(30, 32 + index % 5)), 8 + index)),
            max_tokens=20 + 3 * index % 17,
            temperature=(0.0, 0.05, 1.0)[index % 3],
            seed=index,
            logprobs=1 if index % 2 else None,
            **({"frequency_penalty": 0.5} if index % 4 == 3 else {}),
        )
        for index in range(9)
    ]
    plain = make_core(speculates=False)
    alone = [run_alone(plain, each) for each in asked]
    # Few pages: drafts must not keep others from theirs, and what is given up comes back the same.
    for changes in ({}, {"kv_pages": 20}):
        core = make_core(**changes)
        driver = Driver(core)
        for each in asked:
            driver.submit(each)
            driver.step()
        driver.run()
        assert [driver.output(each.request_id) for each in asked] == alone
        assert core.stats().accepted_tokens_total > 0
        assert (core.stats().preemptions_total > 0) == bool(changes)


def test_an_abort_while_a_draft_is_under_way_publishes_nothing_wrong(make_core):
    asked = request(prompt=LOOP, max_tokens=40)
    expected = run_alone(make_core(speculates=False), asked)
    for steps in range(12, 20):
        core = make_core()
        driver = Driver(core)
        sequence = driver.submit(asked)
        for _ in range(steps):
            driver.step()
        core.abort(sequence)
        driver.run()
        driver.deltas.clear()
        driver.submit(asked)
        driver.run()
        assert driver.output("a") == expected


def test_the_distribution_is_the_models_own(make_core):
    """Chi-square over many seeds, of tokens sampled behind a draft that holds now and then."""
    params = {"max_tokens": 4, "temperature": 1.3, "top_k": 3}

    def sample(core: EngineCore, seeds: range) -> Counter[tuple[int, ...]]:
        asked = (request(prompt=LOOP, seed=seed, **params) for seed in seeds)
        return Counter(run_alone(core, each).token_ids[1:3] for each in asked)

    plain = sample(make_core(speculates=False), range(300))
    draft = max(plain, key=plain.__getitem__)
    core = make_core()
    core._speculator.pays = lambda running: True
    core._speculator.choose = lambda decodes: {each.request_id: draft for each in decodes}
    # Other seeds: the same would give the same tokens.
    drafted = sample(core, range(1000, 1300))
    found = core.stats()
    assert 0.1 < found.accepted_tokens_total / found.drafted_tokens_total < 0.9
    common = [pair for pair in plain if plain[pair] + drafted[pair] >= 10]
    table = [[counts[pair] for pair in common] for counts in (plain, drafted)]
    table = [[*row, 300 - sum(row)] for row in table]
    if not any(row[-1] for row in table):
        table = [row[:-1] for row in table]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_drafts_are_made_only_where_a_larger_step_costs_less_than_the_steps_it_saves(make_core):
    asked = request(prompt=LOOP, max_tokens=40)
    for synchronous, is_drafted in ((FREE, True), (DEAR, False)):
        core = make_core()
        core._speculator.times = Eager(pipelined=FREE, synchronous=synchronous)
        run_alone(core, asked)
        assert (core.stats().drafted_tokens_total > 0) == is_drafted


def test_speculation_switched_off_compiles_no_larger_steps(language_model):
    runner = Runner(language_model, dataclasses.replace(CONFIG, speculate="off"))
    assert runner.buckets.batches == (2, 3)


def test_step_times_are_corrected_by_what_steps_take():
    found = times(DEAR)
    assert found.seconds(4, "synchronous") == pytest.approx(0.06)
    for _ in range(60):
        found.record(6, "synchronous", 0.12)
    assert found.seconds(6, "synchronous") == pytest.approx(0.12, rel=0.02)
    # What one way of stepping shows is expected of the other until it is known better.
    assert found.seconds(2, "pipelined") == pytest.approx(0.02, rel=0.02)
    for _ in range(60):
        found.record(2, "pipelined", 0.01)
    assert found.seconds(2, "pipelined") == pytest.approx(0.01, rel=0.02)
    # A correction that ruled drafts out fades while none are made.
    for _ in range(3000):
        found.record(2, "pipelined", 0.01)
    assert found.seconds(6, "synchronous") == pytest.approx(0.06, rel=0.02)
