"""The forward pass against an independent one, and the cached one against the forward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import palm
from model.config import PaLMConfig
from model.palm import forward, forward_hidden, forward_step, init_cache, unembed
from tests.model import numpy_palm

MAX_LOGIT_DIFFERENCE = 1e-4
MAX_HIDDEN_DIFFERENCE = 2e-5

run_forward = jax.jit(forward, static_argnums=0)
run_hidden = jax.jit(forward_hidden, static_argnums=0)
run_step = jax.jit(forward_step, static_argnums=0, static_argnames="key_len")

VARIANTS = {
    "palm": {},
    "mha-half": {"num_kv_heads": 4, "rope_style": "half"},
    "gqa-qk-norm": {"num_kv_heads": 2, "qk_norm": True, "norm_bias": True},
    "cohere": {"num_kv_heads": 2, "qk_norm": True, "logit_scale": 0.0625},
    "falcon-7b": {
        "norm_bias": True,
        "gated": False,
        "activation": "gelu",
        "rope_style": "half",
        "logit_scale": 1.0,
    },
    "falcon-40b": {
        "norm_bias": True,
        "separate_mlp_norm": True,
        "num_kv_heads": 2,
        "gated": False,
        "activation": "gelu",
        "rope_style": "half",
        "tied_embeddings": False,
        "logit_scale": 1.0,
    },
    "geglu-untied": {"activation": "gelu", "tied_embeddings": False, "rope_theta": 500.0},
    "plain-silu": {"gated": False, "norm_eps": 0.1},
}


def _tokens(config: PaLMConfig, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape, dtype=np.int32)


@pytest.fixture(scope="module")
def tiny_weights(tiny_config):
    return numpy_palm.random_weights(tiny_config, seed=1)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_are_those_of_the_definition(tiny_config, changes):
    config = dataclasses.replace(tiny_config, **changes)
    weights = numpy_palm.random_weights(config, seed=4)
    tokens = _tokens(config, 2, 17)
    found = run_forward(config, weights, tokens)
    assert found.dtype == jnp.float32
    expected = numpy_palm.logits(config, weights, tokens)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=MAX_LOGIT_DIFFERENCE)


@st.composite
def configs(draw):
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    return PaLMConfig(
        vocab_size=draw(st.integers(2, 40)),
        num_layers=draw(st.integers(1, 2)),
        d_model=draw(st.integers(4, 20)),
        num_heads=kv_heads * draw(st.integers(1, 3)),
        num_kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 5)),
        d_ff=draw(st.integers(1, 30)),
        # Small epsilons are as in real models; larger ones show that the value is used at all.
        norm_eps=draw(st.sampled_from([1e-5, 1e-2])),
        norm_bias=draw(st.booleans()),
        separate_mlp_norm=draw(st.booleans()),
        activation=draw(st.sampled_from(["silu", "gelu"])),
        gated=draw(st.booleans()),
        rope_theta=draw(st.sampled_from([10.0, 10_000.0, 8e6])),
        rope_style=draw(st.sampled_from(["interleaved", "half"])),
        qk_norm=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        logit_scale=draw(st.sampled_from([None, 0.0625, 1.0])),
    )


@settings(max_examples=10, deadline=None, derandomize=True)
@given(config=configs(), batch=st.integers(1, 3), length=st.integers(1, 9), seed=st.integers(0, 99))
def test_any_config_computes_the_definition(config, batch, length, seed):
    weights = numpy_palm.random_weights(config, seed)
    tokens = _tokens(config, batch, length, seed=seed)
    expected = numpy_palm.logits(config, weights, tokens)
    # Untied or unscaled logits of wide models are larger than 1: relative to the largest then.
    scale = max(1.0, float(np.abs(expected).max()))
    found = run_forward(config, weights, tokens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=MAX_LOGIT_DIFFERENCE * scale)


def test_bfloat16_weights_give_float32_logits_close_to_the_definition(tiny_config, tiny_weights):
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tiny_weights)
    tokens = _tokens(tiny_config, 2, 17)
    found = run_forward(tiny_config, weights, tokens)
    assert found.dtype == jnp.float32
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), weights)
    expected = numpy_palm.logits(tiny_config, rounded, tokens)
    # bfloat16 has 8 bits: a rounding is 2**-9 of the value, and a residual path has a dozen.
    np.testing.assert_allclose(found, expected, rtol=0, atol=12 * 2**-9 * np.abs(expected).max())


def test_unembed_of_hidden_is_forward(tiny_config, tiny_weights):
    tokens = _tokens(tiny_config, 2, 5)
    hidden = run_hidden(tiny_config, tiny_weights, tokens)
    assert hidden.shape == (2, 5, tiny_config.d_model)
    np.testing.assert_allclose(
        unembed(tiny_config, tiny_weights, hidden[:, 3]),
        run_forward(tiny_config, tiny_weights, tokens)[:, 3],
        atol=1e-5,
    )


@pytest.mark.parametrize("changed_at", [1, 8, 15])
def test_a_later_token_leaves_earlier_logits_bitwise_as_they_were(
    tiny_config, tiny_weights, changed_at
):
    tokens = _tokens(tiny_config, 2, 16)
    others = tokens.copy()
    others[:, changed_at:] = (others[:, changed_at:] + 1) % tiny_config.vocab_size
    before, after = (
        np.asarray(run_forward(tiny_config, tiny_weights, row)) for row in (tokens, others)
    )
    np.testing.assert_array_equal(before[:, :changed_at], after[:, :changed_at])
    assert (before[:, changed_at] != after[:, changed_at]).any(axis=-1).all()


def test_a_row_is_bitwise_the_same_whatever_the_other_rows_are(tiny_config, tiny_weights):
    tokens = _tokens(tiny_config, 3, 16)
    others = tokens.copy()
    others[[0, 2]] = _tokens(tiny_config, 2, 16, seed=9)
    before, after = (run_forward(tiny_config, tiny_weights, row) for row in (tokens, others))
    np.testing.assert_array_equal(before[1], after[1])


# --- with a cache -----------------------------------------------------------------------------

SLOTS, MAX_LEN = 5, 32
BUCKETS = (12, 32)


def _noise_cache(config: PaLMConfig, slots: int = SLOTS, max_len: int = MAX_LEN):
    """A cache as earlier requests leave it: full of their keys and values."""
    rng = np.random.default_rng(8)
    return [
        tuple(jnp.asarray(100 * rng.standard_normal(part.shape), part.dtype) for part in layer)
        for layer in init_cache(config, slots, max_len)
    ]


@functools.cache
def _sequences(config: PaLMConfig, seed: int):
    """Weights, tokens [SLOTS, 24] and their hidden states without a cache."""
    weights = numpy_palm.random_weights(config, seed)
    tokens = _tokens(config, SLOTS, 24, seed=seed)
    return weights, tokens, np.asarray(run_hidden(config, weights, tokens))


@pytest.mark.parametrize(
    "changes", [{}, VARIANTS["gqa-qk-norm"] | {"num_layers": 1}], ids=["mqa", "gqa"]
)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_chunking_in_any_slots_equals_the_whole_sequence(tiny_config, changes, data):
    config = dataclasses.replace(tiny_config, **changes)
    weights, tokens, expected = _sequences(config, 3)
    slot_of = data.draw(st.permutations(range(SLOTS)))
    done = [0] * SLOTS
    cache = _noise_cache(config)
    while waiting := [row for row in range(SLOTS) if done[row] < tokens.shape[1]]:
        # Few shapes, so that few programs are compiled; ragged, since every row has its own start.
        batch = data.draw(st.sampled_from([size for size in (1, 3) if size <= len(waiting)]))
        chosen = data.draw(st.permutations(waiting))[:batch]
        left = min(tokens.shape[1] - done[row] for row in chosen)
        length = data.draw(st.sampled_from([size for size in (1, 6) if size <= left]))
        start = np.array([done[row] for row in chosen], np.int32)
        fitting = [size for size in BUCKETS if size >= start.max() + length]
        hidden, cache = run_step(
            config,
            weights,
            np.stack([tokens[row, done[row] : done[row] + length] for row in chosen]),
            start,
            cache,
            key_len=data.draw(st.sampled_from(fitting)),
            rows=np.array([slot_of[row] for row in chosen], np.int32),
        )
        for found, row in zip(hidden, chosen, strict=True):
            np.testing.assert_allclose(
                found, expected[row, done[row] : done[row] + length], atol=MAX_HIDDEN_DIFFERENCE
            )
            done[row] += length


def test_without_rows_row_b_is_slot_b(tiny_config):
    weights, tokens, expected = _sequences(tiny_config, 3)
    cache = _noise_cache(tiny_config)
    first = np.array([4, 0, 8, 2, 6], np.int32)
    # Bring every row to its own start, then run them together.
    for row, length in enumerate(first):
        for at in range(length):
            _, cache = run_step(
                tiny_config,
                weights,
                tokens[row : row + 1, at : at + 1],
                np.array([at], np.int32),
                cache,
                key_len=8,
                rows=np.array([row], np.int32),
            )
    together = np.stack([tokens[row, at : at + 4] for row, at in enumerate(first)])
    slots = np.arange(SLOTS, dtype=np.int32)
    implied, implied_cache = run_step(tiny_config, weights, together, first, cache, key_len=16)
    named, named_cache = run_step(
        tiny_config, weights, together, first, cache, key_len=16, rows=slots
    )
    for row, at in enumerate(first):
        np.testing.assert_allclose(
            implied[row], expected[row, at : at + 4], atol=MAX_HIDDEN_DIFFERENCE
        )
    np.testing.assert_allclose(implied, named, atol=MAX_HIDDEN_DIFFERENCE)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5), implied_cache, named_cache
    )


def test_only_the_named_positions_of_the_named_slots_are_written(tiny_config, tiny_weights):
    before = _noise_cache(tiny_config)
    _, after = run_step(
        tiny_config,
        tiny_weights,
        _tokens(tiny_config, 2, 3),
        np.array([5, 17], np.int32),
        before,
        key_len=32,
        rows=np.array([3, 1], np.int32),
    )
    written = np.zeros((SLOTS, MAX_LEN), bool)
    written[3, 5:8] = True
    written[1, 17:20] = True
    for old_layer, new_layer in zip(before, after, strict=True):
        for old, new in zip(old_layer, new_layer, strict=True):
            changed = (np.asarray(old) != np.asarray(new)).any(axis=(2, 3))
            np.testing.assert_array_equal(changed, written)


def test_what_other_requests_left_in_the_cache_changes_no_bit(tiny_config, tiny_weights):
    tokens = _tokens(tiny_config, 2, 8)
    start, rows = np.zeros(2, np.int32), np.array([4, 2], np.int32)
    empty, noisy = (
        run_step(tiny_config, tiny_weights, tokens, start, cache, key_len=16, rows=rows)[0]
        for cache in (init_cache(tiny_config, SLOTS, MAX_LEN), _noise_cache(tiny_config))
    )
    np.testing.assert_array_equal(empty, noisy)


def test_more_rows_than_are_written_one_by_one_equal_the_whole_sequence(tiny_config):
    rows = palm._MAX_UNROLLED_ROWS + 1
    config = dataclasses.replace(tiny_config, num_layers=1)
    weights = numpy_palm.random_weights(config, 2)
    tokens = _tokens(config, rows, 6)
    slots = np.random.default_rng(0).permutation(rows + 2)[:rows].astype(np.int32)
    cache = _noise_cache(config, rows + 2, 8)
    found = []
    for start in (0, 3):
        hidden, cache = run_step(
            config,
            weights,
            tokens[:, start : start + 3],
            np.full(rows, start, np.int32),
            cache,
            key_len=8,
            rows=slots,
        )
        found.append(hidden)
    np.testing.assert_allclose(
        np.concatenate(found, axis=1),
        run_hidden(config, weights, tokens),
        atol=MAX_HIDDEN_DIFFERENCE,
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_empty_cache_is_zeros_of_the_counted_size(tiny_config, dtype):
    cache = init_cache(tiny_config, 3, 7, dtype)
    assert len(cache) == tiny_config.num_layers
    assert {part.dtype for layer in cache for part in layer} == {jnp.dtype(dtype)}
    assert not any(np.asarray(part).any() for layer in cache for part in layer)
    value_bytes = jnp.dtype(dtype).itemsize
    assert sum(part.nbytes for layer in cache for part in layer) == (
        3 * 7 * tiny_config.kv_bytes_per_token(value_bytes)
    )


def test_bfloat16_weights_run_with_a_bfloat16_cache(tiny_config, tiny_weights):
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tiny_weights)
    tokens = _tokens(tiny_config, 2, 6)
    hidden, cache = run_step(
        tiny_config,
        weights,
        tokens,
        np.zeros(2, np.int32),
        init_cache(tiny_config, 2, 8, jnp.bfloat16),
        key_len=8,
    )
    assert hidden.dtype == jnp.bfloat16
    assert cache[0][0].dtype == jnp.bfloat16
    expected = run_hidden(tiny_config, weights, tokens).astype(jnp.float32)
    np.testing.assert_allclose(hidden.astype(jnp.float32), expected, atol=12 * 2**-9 * 3)


# --- ids and values that should not occur -----------------------------------------------------
# Ids are checked where they enter, not here: a compiled program cannot raise. These tests say what
# an id that slipped through would do, so that nobody relies on anything better.


@pytest.mark.parametrize("beyond", [53, 2**31 - 1, -54])
def test_an_id_outside_the_table_makes_its_whole_row_nan_and_no_other(
    tiny_config, tiny_weights, beyond
):
    tokens = _tokens(tiny_config, 2, 6)
    clean = run_forward(tiny_config, tiny_weights, tokens)
    tokens[0, 3] = beyond
    found = run_forward(tiny_config, tiny_weights, tokens)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], clean[1])


def test_a_negative_id_counts_from_the_end_of_the_table(tiny_config, tiny_weights):
    found, expected = (
        run_forward(tiny_config, tiny_weights, np.array([[4, token]], np.int32))
        for token in (-1, tiny_config.vocab_size - 1)
    )
    np.testing.assert_array_equal(found, expected)


def _slot_after_nan(config: PaLMConfig, weights, slot: int):
    """Hidden states of a clean request in `slot`, after one in slot 1 had an id out of range."""
    cache = init_cache(config, 2, 8)
    for tokens, row in (([3, 99, 5], 1), ([3, 4], slot)):
        hidden, cache = run_step(
            config,
            weights,
            np.array([tokens], np.int32),
            np.zeros(1, np.int32),
            cache,
            key_len=8,
            rows=np.array([row], np.int32),
        )
    return hidden


def test_nan_stays_in_its_slot(tiny_config, tiny_weights):
    assert np.isfinite(_slot_after_nan(tiny_config, tiny_weights, slot=0)).all()


@pytest.mark.xfail(
    strict=True, reason="a masked value has weight 0, and 0 · NaN is NaN: the slot must be cleared"
)
def test_nan_does_not_outlive_its_request(tiny_config, tiny_weights):
    assert np.isfinite(_slot_after_nan(tiny_config, tiny_weights, slot=1)).all()
