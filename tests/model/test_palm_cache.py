"""The cached forward pass against the one without a cache, in any chunking and any slots."""

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
from model.palm import forward_hidden, forward_step, init_cache
from tests.model import numpy_palm

MAX_HIDDEN_DIFFERENCE = 2e-5

run_hidden = jax.jit(forward_hidden, static_argnums=0)
run_step = jax.jit(forward_step, static_argnums=0, static_argnames="key_len")

SLOTS, MAX_LEN = 5, 32
BUCKETS = (12, 32)


def _tokens(config: PaLMConfig, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape, dtype=np.int32)


@pytest.fixture(scope="module")
def tiny_weights(tiny_config):
    return numpy_palm.random_weights(tiny_config, seed=1)


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
    "changes", [{}, {"num_layers": 1, "num_kv_heads": 2, "qk_norm": True}], ids=["mqa", "gqa"]
)
@settings(max_examples=4, deadline=None, derandomize=True)
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
