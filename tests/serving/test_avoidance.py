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
from serving.programs import avoid_ngrams
from serving.request import SamplingParams
from serving.runner import Runner
from serving.sampler import Sampled, no_logprobs, sample
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


def test_what_a_step_has_noted_is_that_of_the_last_choice():
    """Every second row would end a forbidden trigram; one of them has no other token."""
    slots = jnp.array([4, 0, 3, 1, 6])
    rows, tokens = len(slots), jnp.array([2, 2, 2, 2, 5])
    rng = np.random.default_rng(0)
    before = dataclasses.replace(
        TokenMemory.empty(7, VOCAB, NGRAM),
        counts=jnp.asarray(rng.integers(0, 4, (7, VOCAB)), jnp.int32),
        recent=jnp.asarray(rng.integers(0, VOCAB, (7, NGRAM)), jnp.int32),
    )
    tails = np.asarray(before.recent)[np.asarray(slots), 1:]
    forbidden = [(*tails[row], token) for row, token in ((0, 2), (2, 2), (2, 3))]
    forbidden += [(*tails[4], token) for token in range(VOCAB)]
    settings = SettingsTable(7)
    for slot in range(7):
        params = SamplingParams(temperature=0.0, frequency_penalty=0.5)
        settings.fill(slot, params, 0, avoids_ngrams=slot != 1)
    logits = jnp.asarray(rng.normal(size=(rows, VOCAB)), jnp.float32)
    batch = jnp.stack([tokens, slots, jnp.full(rows, 3), jnp.full(rows, 1)]).astype(jnp.int32)
    sampled, memory, newest = jax.jit(avoid_ngrams)(
        Sampled(tokens=tokens, logprobs=no_logprobs(rows, VOCAB)),
        logits,
        before.with_tokens(slots, tokens),
        jnp.zeros(7, jnp.int32).at[slots].set(tokens),
        settings.on_device(),
        batch,
        filter_of(forbidden, NGRAM),
    )
    adjusted = np.asarray(logits) - 0.5 * np.asarray(before.counts)[np.asarray(slots)]
    expected = tokens.tolist()
    for row, refused in ((0, [2]), (2, [2, 3])):
        adjusted[row, refused] = -np.inf
        expected[row] = int(adjusted[row].argmax())
    expected[4] = NO_TOKEN
    assert sampled.tokens.tolist() == expected
    named = jnp.maximum(sampled.tokens, 0)
    after = before.with_tokens(slots, named)
    np.testing.assert_array_equal(memory.counts, after.counts)
    np.testing.assert_array_equal(memory.recent, after.recent)
    np.testing.assert_array_equal(newest, jnp.zeros(7, jnp.int32).at[slots].set(named))


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


def say_without_repeating(core: EngineCore) -> None:
    """Requests beside each other, six times over; what was said before is forbidden each time.

    Prompts are forbidden text as well.
    """
    documents = [asked(number).prompt_token_ids for number in range(5)]
    said = 0
    for _ in range(6):
        core.runner.forbid(filter_of(documents, NGRAM))
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


def avoid_what_begins_in_a_cached_prompt(core: EngineCore) -> None:
    """The n-gram's first tokens are a prompt that is not computed again."""
    asking = asked(2, temperature=0.0, top_k=0)
    core.runner.forbid(filter_of((), NGRAM))
    first = run_alone(core, asking).token_ids[0]
    cached = core.stats().cached_tokens_total
    core.runner.forbid(filter_of([(*asking.prompt_token_ids[1 - NGRAM :], first)], NGRAM))
    assert run_alone(core, asking).token_ids[0] != first
    assert core.stats().cached_tokens_total > cached


@pytest.mark.parametrize("pages", [None, 20])
def test_no_forbidden_ngram_is_ever_ended(runner, tokenizer, pages):
    core = EngineCore(runner, tokenizer, dataclasses.replace(ENGINE, kv_pages=pages))
    say_without_repeating(core)
    assert core.stats().cached_tokens_total > 0
    assert core.stats().preemptions_total > 0 or pages is None


def test_what_begins_in_a_cached_prompt_is_not_ended(core):
    avoid_what_begins_in_a_cached_prompt(core)


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
