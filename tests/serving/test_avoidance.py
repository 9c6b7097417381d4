"""Requests that avoid n-grams never end one, however they are scheduled, and else say the same."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from serving.avoidance import NO_TOKEN
from serving.constraint import Constraint
from serving.core import EngineCore
from serving.errors import RequestError
from serving.ngram_filter import NgramFilter
from serving.request import SamplingParams
from serving.runner import Runner
from serving.sampler import sample
from serving.sampling_state import SettingsTable, TokenMemory
from serving.speculation import can_speculate
from tests.serving.conftest import ENGINE
from tests.serving.forbidding import ROOM, ended, filter_of, ngrams_of
from tests.serving.stepping import Driver, request, run_alone

NGRAM = 3
VOCAB = 12
DRAWS = 3000
FULL = NgramFilter(words=np.full_like(filter_of((), NGRAM).words, 0xFFFFFFFF), ngram=NGRAM)
_SAMPLE = jax.jit(sample)


@pytest.fixture(scope="module")
def runner(language_model) -> Runner:
    runner = Runner(language_model, ENGINE)
    runner.forbid(filter_of((), NGRAM))
    runner.make_ready()
    return runner


@pytest.fixture
def core(runner, tokenizer) -> EngineCore:
    return EngineCore(runner, tokenizer, ENGINE)


def draw(logits, forbidden, count=DRAWS, **params):
    """`count` draws after the tokens 7, 8, where every NGRAM 7, 8, t of `forbidden` is one."""
    settings = SettingsTable(count)
    for slot in range(count):
        seed = params.get("seed", slot)
        settings.fill(slot, SamplingParams(**params), seed, avoids_ngrams=True)
    memory = TokenMemory.empty(count, VOCAB, NGRAM)
    recent = jnp.tile(jnp.array([[1, 7, 8]], jnp.int32), (count, 1))
    sampled, after = _SAMPLE(
        jnp.tile(jnp.asarray(logits, jnp.float32), (count, 1)),
        settings.on_device(),
        dataclasses.replace(memory, recent=recent),
        slots=jnp.arange(count),
        generated=jnp.zeros(count, jnp.int32),
        positions=jnp.full(count, 3, jnp.int32),
        ngrams=filter_of([(7, 8, token) for token in forbidden], NGRAM),
    )
    tokens = sampled.tokens.tolist()
    assert after.recent[:, 1:].tolist() == [[8, max(token, 0)] for token in tokens]
    return tokens


LOGITS = np.linspace(3, 0, VOCAB)


@pytest.mark.parametrize("forbidden", [(), (0,), (0, 1, 5), tuple(range(VOCAB - 1))])
def test_draws_are_those_of_the_masked_distribution(forbidden):
    counts = Counter(draw(LOGITS, forbidden, temperature=1.0))
    weights = np.exp(LOGITS)
    weights[list(forbidden)] = 0
    expected = DRAWS * weights / weights.sum()
    assert set(counts) <= set(np.flatnonzero(expected).tolist())
    kept = expected > 0
    if kept.sum() > 1:
        observed = [counts[token] for token in np.flatnonzero(kept).tolist()]
        assert stats.chisquare(observed, expected[kept]).pvalue > 1e-4


def test_greedy_takes_the_best_that_is_left():
    assert set(draw(LOGITS, (0, 1, 2, 4), temperature=0.0)) == {3}


def test_truncation_makes_room_for_another():
    assert set(draw(LOGITS, (0, 1), temperature=1.0, top_k=2)) == {2, 3}
    assert set(draw(LOGITS, (0,), temperature=1.0, top_p=0.01)) == {1}
    assert set(draw(LOGITS, (0, 1), temperature=1.0, min_p=0.99)) == {2}


def test_what_is_not_forbidden_is_drawn_as_without_a_filter():
    plain = draw(LOGITS, (), temperature=1.0)
    avoiding = draw(LOGITS, (0, 5), temperature=1.0)
    assert all(two == one for one, two in zip(plain, avoiding, strict=True) if one not in (0, 5))


def test_a_row_does_not_depend_on_the_rows_beside_it():
    params = {"temperature": 1.0, "top_p": 0.9}
    together = draw(LOGITS, (0, 1, 2), **params)
    alone = [draw(LOGITS, (0, 1, 2), 1, seed=seed, **params) for seed in range(40)]
    assert together[:40] == [token for (token,) in alone]


def test_no_token_is_left_where_all_are_forbidden():
    assert set(draw(LOGITS, range(VOCAB), temperature=1.0)) == {NO_TOKEN}
    assert set(draw(LOGITS, range(VOCAB), temperature=0.0)) == {NO_TOKEN}


def asked(number: int, **changes: object):
    """Requests of every kind: greedy and drawn, short prompts and long, and two that share one."""
    shared = tuple(range(40, 60))
    kinds: list[dict[str, object]] = [
        {"prompt": (30, 31, 32)},
        {"prompt": (30,), "temperature": 1.0, "seed": 1},
        {"prompt": shared, "temperature": 1.3, "seed": 2, "top_k": 5},
        {"prompt": (*shared, 61), "temperature": 0.7, "seed": 3, "top_p": 0.5},
        {"prompt": (33,) * 9, "repetition_penalty": 1.2, "logprobs": 2},
    ]
    fields = {"max_tokens": 30, "avoid_ngrams": True, **kinds[number], **changes}
    return request(f"r{number}", **fields)


@pytest.mark.parametrize("pages", [None, 20])
def test_no_forbidden_ngram_is_ever_ended(runner, core, tokenizer, pages):
    """What was said before is forbidden, again and again; prompts are forbidden text as well."""
    core = EngineCore(runner, tokenizer, dataclasses.replace(ENGINE, kv_pages=pages))
    documents = [asked(number).prompt_token_ids for number in range(5)]
    said = 0
    for _ in range(6):
        runner.forbid(filter_of(documents, NGRAM))
        forbidden = ngrams_of(documents, NGRAM)
        driver = Driver(core)
        for number in range(5):
            driver.submit(asked(number))
        driver.run()
        for number in range(5):
            prompt, output = asked(number).prompt_token_ids, driver.output(f"r{number}")
            assert not ended(prompt, output.token_ids, NGRAM) & forbidden
            said += len(output.token_ids)
            documents.append((*prompt, *output.token_ids))
            # It is all that a request's own tokens depend on.
            assert output.token_ids == run_alone(core, asked(number)).token_ids
    assert said > 6 * 5 * 20
    assert len(forbidden) < ROOM
    assert core.stats().preemptions_total > 0 or pages is None


def test_nothing_changes_for_requests_that_do_not_ask(runner, core):
    plain = [run_alone(core, asked(number, avoid_ngrams=False)) for number in range(5)]
    runner.forbid(FULL)
    again = [run_alone(core, asked(number, avoid_ngrams=False)) for number in range(5)]
    assert again == plain


def test_ngrams_that_do_not_come_change_nothing(runner, core):
    runner.forbid(filter_of([(1, 2, 3)], NGRAM))
    for number in range(5):
        plain = run_alone(core, asked(number, avoid_ngrams=False))
        assert run_alone(core, asked(number)) == plain


@pytest.mark.parametrize("constraint", [None, Constraint.of_regex("[0-9]{12}")])
def test_a_request_ends_where_nothing_may_be_said(runner, core, constraint):
    runner.forbid(FULL)
    asking = asked(0, prompt=(30,))
    if constraint is not None:
        asking = dataclasses.replace(asking, constraint=core.grammars.compile(constraint))
    output = run_alone(core, asking)
    assert (output.finish_reason, output.stop_reason) == ("content_filter", "no_token")
    assert len(output.token_ids) == NGRAM - 2  # the prompt's token and one more end no trigram


def test_a_grammar_leaves_what_is_not_forbidden(runner, core):
    constraint = core.grammars.compile(Constraint.of_regex("[a-z ]{1,30}"))
    documents = []
    for _ in range(5):
        runner.forbid(filter_of(documents, NGRAM))
        asking = dataclasses.replace(asked(0), constraint=constraint)
        output = run_alone(core, asking)
        prompt = asking.prompt_token_ids
        assert not ended(prompt, output.token_ids, NGRAM) & ngrams_of(documents, NGRAM)
        documents.append((*prompt, *output.token_ids))
    assert len(set(documents)) == 5


def test_requests_that_avoid_are_not_speculated_for(core):
    assert can_speculate(core.prepare(asked(0, avoid_ngrams=False)))
    assert not can_speculate(core.prepare(asked(0)))


def test_an_engine_without_a_filter_refuses(language_model, tokenizer):
    core = EngineCore(Runner(language_model, ENGINE), tokenizer, ENGINE)
    with pytest.raises(RequestError, match="avoid_ngrams=True needs a filter") as caught:
        core.prepare(asked(0))
    assert caught.value.param == "avoid_ngrams"
