"""The device sampler against an independent one, and against the distributions it should draw."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.request import SamplingParams
from serving.sampler import (
    Sampled,
    _invert,
    first_argmax,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    sample,
    score,
)
from serving.sampling_state import SettingsTable, TokenMemory, memory_row
from tests.serving.reference_sampler import adjusted, log_softmax, probabilities

VOCAB = 97
SLOTS = 6
_SAMPLE = jax.jit(sample)
_TRUNCATE = jax.jit(lambda logits, k, p, m: keep_min_p(keep_top_p(keep_top_k(logits, k), p), m))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    logits: np.ndarray
    params: SamplingParams
    prompt: tuple[int, ...] = (3, 5, 8)
    generated: tuple[int, ...] = ()
    stops: frozenset[int] = frozenset({1, 90})
    seed: int = 0
    position: int = 10


def run(rows: list[Row], slots: list[int] | None = None) -> Sampled:
    """Sample one token for each row, from the slots given (or the first ones)."""
    places = slots or list(range(len(rows)))
    table = SettingsTable(SLOTS + 1)
    memory = TokenMemory.empty(SLOTS + 1, VOCAB)
    for slot, row in zip(places, rows, strict=True):
        table.fill(slot, row.params, row.seed)
        fresh = memory_row(row.params, row.prompt, (), row.stops, VOCAB)
        counts = np.bincount(np.asarray(row.generated, np.int64), minlength=VOCAB)
        fresh = dataclasses.replace(fresh, counts=jnp.asarray(counts, jnp.int32))
        memory = memory.with_row(jnp.int32(slot), fresh)
    index = jnp.asarray(places, jnp.int32)
    sampled, _ = _SAMPLE(
        jnp.asarray(np.stack([row.logits for row in rows]), jnp.float32),
        table.on_device().rows(index),
        memory,
        slots=index,
        generated=jnp.asarray([len(row.generated) for row in rows], jnp.int32),
        positions=jnp.asarray([row.position for row in rows], jnp.int32),
    )
    return sampled


def random_logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, VOCAB).astype(np.float32)


PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=5),
        "min_tokens": st.integers(0, 6),
    },
)


@given(
    PARAMS,
    st.integers(0, 2**32),
    st.lists(st.integers(0, VOCAB - 1), max_size=8).map(tuple),
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=8).map(tuple),
)
@settings(max_examples=60)
def test_greedy_takes_the_best_adjusted_logit(
    fields: dict[str, Any], seed: int, generated: tuple[int, ...], prompt: tuple[int, ...]
) -> None:
    params = SamplingParams(temperature=0, max_tokens=99, logprobs=3, **fields)
    row = Row(logits=random_logits(seed), params=params, prompt=prompt, generated=generated)
    expected = adjusted(row.logits, params, prompt=prompt, generated=generated, stops=row.stops)
    sampled = run([row])
    token = int(sampled.tokens[0])
    assert expected[token] >= expected.max() - 1e-4
    raw = log_softmax(row.logits)
    assert float(sampled.logprobs.chosen[0]) == pytest.approx(raw[token], abs=1e-5)
    best = np.argsort(-row.logits)[:20]
    assert sampled.logprobs.top_ids[0].tolist() == best.tolist()
    np.testing.assert_allclose(sampled.logprobs.top[0], raw[best], atol=1e-5)


@given(
    st.integers(0, 2**32),
    st.floats(0.2, 3),
    st.integers(0, VOCAB + 5),
    st.floats(0, 1),
    st.floats(0, 1),
)
@settings(max_examples=150)
def test_only_tokens_of_the_truncated_distribution_are_kept(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = random_logits(seed)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    scaled = jnp.asarray(logits / np.float32(temperature))[None]
    kept = _TRUNCATE(scaled, jnp.int32([top_k]), jnp.float32([top_p]), jnp.float32([min_p]))
    # float32 and float64 may differ about a token at the very edge: allow what a slightly wider
    # truncation keeps, demand what a slightly narrower one keeps.
    wider = probabilities(
        logits,
        dataclasses.replace(params, top_p=min(1, top_p + 1e-5), min_p=max(0, min_p - 1e-5)),
    )
    narrower = probabilities(
        logits,
        dataclasses.replace(params, top_p=max(0, top_p - 1e-5), min_p=min(1, min_p + 1e-5)),
    )
    is_kept = np.isfinite(np.asarray(kept[0]))
    assert not (is_kept & (wider == 0)).any()
    assert not (~is_kept & (narrower > 0)).any()


def test_ties_at_the_threshold_stay() -> None:
    logits = jnp.asarray([[1.0, 3.0, 2.0, 2.0, -0.0, 0.0, -4.0]])
    kept = keep_top_k(logits, jnp.asarray([2], jnp.int32))
    assert np.isfinite(kept[0]).tolist() == [False, True, True, True, False, False, False]
    kept = keep_top_k(logits, jnp.asarray([5], jnp.int32))
    assert np.isfinite(kept[0]).sum() == 7 - 1
    kept = keep_top_p(jnp.log(jnp.asarray([[0.5, 0.2, 0.2, 0.1]])), jnp.asarray([0.6]))
    assert np.isfinite(kept[0]).tolist() == [True, True, True, False]


def test_top_p_zero_is_greedy() -> None:
    logits = random_logits(3)
    row = Row(logits=logits, params=SamplingParams(top_p=0))
    tokens = {int(run([dataclasses.replace(row, seed=seed)]).tokens[0]) for seed in range(20)}
    assert tokens == {int(np.argmax(logits))}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.5},
        {"top_k": 8},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"temperature": 1.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
        {"frequency_penalty": 1.0, "presence_penalty": 0.5, "repetition_penalty": 1.3},
    ],
)
def test_draws_follow_the_distribution(fields: dict[str, Any]) -> None:
    """Chi-square with fixed seeds; 0.1 % of right samplers would fail a case."""
    params = SamplingParams(**fields)
    row = Row(logits=random_logits(11) / 2, params=params, generated=(4, 4, 9))
    table = SettingsTable(SLOTS)
    table.fill(0, params, 0)
    one = jax.tree.map(lambda column: column[:1], table.on_device())
    fresh = memory_row(params, row.prompt, (), row.stops, VOCAB)
    counts = np.bincount(np.asarray(row.generated), minlength=VOCAB)
    memory = jax.tree.map(
        lambda field: field[None], dataclasses.replace(fresh, counts=jnp.asarray(counts, jnp.int32))
    )
    draws = 20_000

    def draw(seed: jax.Array, position: jax.Array) -> jax.Array:
        settings = dataclasses.replace(one, seed=seed[None])
        sampled, _ = sample(
            jnp.asarray(row.logits)[None],
            settings,
            memory,
            slots=jnp.zeros(1, jnp.int32),
            generated=jnp.full(1, 3, jnp.int32),
            positions=position[None],
        )
        return sampled.tokens[0]

    # Half over seeds, half over positions: both must be as good as independent.
    half = draws // 2
    seeds = np.zeros((draws, 2), np.uint32)
    seeds[:half, 1] = np.arange(half)
    positions = np.zeros(draws, np.int32)
    positions[half:] = np.arange(half)
    tokens = np.asarray(jax.jit(jax.vmap(draw))(jnp.asarray(seeds), jnp.asarray(positions)))
    expected = draws * probabilities(
        adjusted(row.logits, params, prompt=row.prompt, generated=row.generated), params
    )
    observed = np.bincount(tokens, minlength=VOCAB)
    assert observed[expected == 0].sum() == 0
    rare = (expected > 0) & (expected < 10)
    cells = np.append(observed[expected >= 10], observed[rare].sum())
    wanted = np.append(expected[expected >= 10], expected[rare].sum())
    chi_square = float(((cells - wanted)[wanted > 0] ** 2 / wanted[wanted > 0]).sum())
    degrees = int((wanted > 0).sum()) - 1
    # Wilson and Hilferty's normal approximation of the chi-square quantile at 0.999.
    limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * np.sqrt(2 / (9 * degrees))) ** 3
    assert chi_square < limit


EVERYTHING = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.9, logprobs=2),
    SamplingParams(temperature=1.3, top_k=12, repetition_penalty=1.4),
    SamplingParams(top_p=0.6, presence_penalty=1.0, frequency_penalty=0.3),
    SamplingParams(temperature=0, logit_bias={7: 30.0}, min_tokens=5, logprobs=20),
    SamplingParams(min_p=0.2, temperature=2.0),
]


def test_a_row_does_not_depend_on_its_neighbours_slot_or_order() -> None:
    rows = [
        Row(logits=random_logits(index), params=params, seed=index << 33 | 5, position=index)
        for index, params in enumerate(EVERYTHING)
    ]
    alone = [run([row, row]) for row in rows]
    together = run(rows)
    order = [4, 1, 5, 0, 3, 2]
    shuffled = run([rows[index] for index in order], slots=[0, 3, 2, 5, 1, 4])
    for index, row in enumerate(rows):
        place = order.index(index)
        expected = alone[index]
        for found, at in ((together, index), (shuffled, place)):
            assert int(found.tokens[at]) == int(expected.tokens[0])
            if row.params.logprobs is not None:
                for name in ("chosen", "top_ids", "top"):
                    mine = np.asarray(getattr(found.logprobs, name)[at])
                    theirs = np.asarray(getattr(expected.logprobs, name)[0])
                    assert mine.tobytes() == theirs.tobytes()


def test_seed_and_position_decide_the_draw() -> None:
    row = Row(logits=np.zeros(VOCAB, np.float32), params=SamplingParams(), seed=7)

    def token(**changes: int) -> int:
        return int(run([dataclasses.replace(row, **changes)]).tokens[0])

    assert token() == token()
    assert len({token(seed=seed) for seed in range(30)}) > 20
    assert len({token(seed=seed << 32) for seed in range(30)}) > 20
    assert len({token(position=position) for position in range(30)}) > 20
    assert token(seed=-1) == token(seed=2**64 - 1)


def test_min_tokens_forbids_stops_until_reached() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[90] = 50
    params = SamplingParams(temperature=0, min_tokens=2)
    early = Row(logits=logits, params=params, generated=(5,))
    late = dataclasses.replace(early, generated=(5, 6))
    sampled = run([early, late])
    assert int(sampled.tokens[0]) != 90
    assert int(sampled.tokens[1]) == 90


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_reported(value: float) -> None:
    broken = random_logits(0)
    broken[3] = value
    rows = [
        Row(logits=broken, params=SamplingParams()),
        Row(logits=random_logits(0), params=SamplingParams()),
    ]
    tokens = run(rows).tokens
    assert int(tokens[0]) == -1
    assert int(tokens[1]) >= 0


def test_sampling_counts_the_token() -> None:
    table = SettingsTable(3)
    memory = TokenMemory.empty(3, VOCAB)
    logits = np.zeros((2, VOCAB), np.float32)
    logits[0, 4] = logits[1, 6] = 9
    slots = jnp.asarray([2, 0], jnp.int32)
    zeros = jnp.zeros(2, jnp.int32)
    for _ in range(2):
        _, memory = _SAMPLE(
            jnp.asarray(logits),
            table.on_device().rows(slots),
            memory,
            slots=slots,
            generated=zeros,
            positions=zeros,
        )
    assert int(memory.counts[2, 4]) == int(memory.counts[0, 6]) == 2
    assert int(memory.counts.sum()) == 4


def test_first_argmax_takes_the_first_of_equals() -> None:
    values = jnp.asarray([[1.0, 5.0, 5.0], [7.0, 7.0, 0.0], [0.0, 0.0, 9.0]])
    assert first_argmax(values).tolist() == [1, 0, 2]


def test_score_of_given_tokens() -> None:
    logits = np.stack([random_logits(1), random_logits(2)])
    result = score(jnp.asarray(logits), jnp.asarray([5, 60], jnp.int32))
    for row, token in enumerate((5, 60)):
        assert float(result.chosen[row]) == pytest.approx(log_softmax(logits[row])[token], abs=1e-5)


def test_clearing_a_slot_makes_it_neutral() -> None:
    table = SettingsTable(2)
    neutral = jax.tree.map(np.asarray, table.on_device())
    table.fill(1, EVERYTHING[2], seed=9)
    filled = table.on_device()
    assert int(filled.top_k[1]) == 12
    assert bool(filled.is_adjusted[1])
    table.clear(1)
    cleared = jax.tree.map(np.asarray, table.on_device())
    for name in (field.name for field in dataclasses.fields(neutral)):
        assert (getattr(neutral, name) == getattr(cleared, name)).all(), name
    assert int(filled.top_k[1]) == 12  # what was sent does not change under a running step


@given(st.lists(st.sampled_from([0.0, 1e-30, 0.25, 1.0, 3.0]), min_size=1, max_size=9))
@settings(max_examples=60)
def test_a_column_without_weight_is_never_chosen(weights: list[float]) -> None:
    assume(any(weights))
    # The last of them is what a float32 below 1 can be at most, which rounding takes to the end.
    uniform = jnp.asarray([0.0, 0.3, 0.999, 1 - 2**-24], jnp.float32)
    rows = jnp.tile(jnp.asarray(weights, jnp.float32), (len(uniform), 1))
    chosen = np.asarray(_invert(rows, uniform))
    cumulative = np.cumsum(np.asarray(weights, np.float32))
    for column, drawn in zip(chosen, np.asarray(uniform), strict=True):
        assert weights[column] > 0
        before = cumulative[column] - np.float32(weights[column])
        assert before <= drawn * cumulative[-1] * (1 + 1e-6)
