"""The cached forward pass against the one without a cache, in any chunking and any pages."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import kv_cache
from model.config import PaLMConfig
from model.kv_cache import SCRATCH_PAGE, init_cache
from model.palm import forward_hidden, forward_step
from tests.model import numpy_palm

MAX_HIDDEN_DIFFERENCE = 2e-5

run_hidden = jax.jit(forward_hidden, static_argnums=0)
run_step = jax.jit(forward_step, static_argnums=0)

ROWS, PAGE_SIZE, ROW_PAGES = 4, 4, 6
NUM_PAGES = 1 + ROWS * ROW_PAGES


def _tokens(config: PaLMConfig, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape, dtype=np.int32)


def _tables(seed: int) -> np.ndarray:
    """Pages for every row, in no order."""
    pages = np.random.default_rng(seed).permutation(np.arange(1, NUM_PAGES, dtype=np.int32))
    return pages.reshape(ROWS, ROW_PAGES)


def _at(*positions: int) -> np.ndarray:
    return np.array(positions, np.int32)


@pytest.fixture(scope="module")
def tiny_weights(tiny_config):
    return numpy_palm.random_weights(tiny_config, seed=1)


def _noise_cache(config: PaLMConfig, num_pages: int = NUM_PAGES, fill: float = 100.0):
    """A cache as earlier requests leave it: full of their keys and values."""
    rng = np.random.default_rng(8)
    return [
        tuple(jnp.asarray(fill * rng.standard_normal(part.shape), part.dtype) for part in layer)
        for layer in init_cache(config, num_pages, PAGE_SIZE)
    ]


@functools.cache
def _sequences(config: PaLMConfig, seed: int):
    """Weights, tokens [ROWS, 24] and their hidden states without a cache."""
    weights = numpy_palm.random_weights(config, seed)
    tokens = _tokens(config, ROWS, ROW_PAGES * PAGE_SIZE, seed=seed)
    return weights, tokens, np.asarray(run_hidden(config, weights, tokens))


@pytest.mark.parametrize(
    "changes", [{}, {"num_layers": 1, "num_kv_heads": 2, "qk_norm": True}], ids=["mqa", "gqa"]
)
@settings(max_examples=4, derandomize=True)
@given(data=st.data())
def test_any_chunking_in_any_pages_equals_the_whole_sequence(tiny_config, changes, data):
    config = dataclasses.replace(tiny_config, **changes)
    weights, tokens, expected = _sequences(config, 3)
    tables = _tables(data.draw(st.integers(0, 9)))
    done = [0] * ROWS
    cache = _noise_cache(config)
    while waiting := [row for row in range(ROWS) if done[row] < tokens.shape[1]]:
        # Few shapes, so that few programs are compiled; ragged, since every row has its own start.
        batch = data.draw(st.sampled_from([size for size in (1, 3) if size <= len(waiting)]))
        chosen = data.draw(st.permutations(waiting))[:batch]
        left = min(tokens.shape[1] - done[row] for row in chosen)
        is_aligned = all(done[row] % PAGE_SIZE == 0 for row in chosen)
        lengths = [size for size in (1, 3, 8) if size <= left and (size < 8 or is_aligned)]
        length = data.draw(st.sampled_from(lengths))
        width = -(-(max(done[row] for row in chosen) + length) // PAGE_SIZE)
        hidden, cache = run_step(
            config,
            weights,
            np.stack([tokens[row, done[row] : done[row] + length] for row in chosen]),
            _at(*(done[row] for row in chosen)),
            cache,
            tables[chosen, : 3 if width <= 3 else ROW_PAGES],
        )
        for found, row in zip(hidden, chosen, strict=True):
            np.testing.assert_allclose(
                found, expected[row, done[row] : done[row] + length], atol=MAX_HIDDEN_DIFFERENCE
            )
            done[row] += length


@pytest.mark.parametrize(("start", "length"), [((5, 17), 3), ((8, 0), 8), ((4, 20), 4)])
def test_only_the_named_positions_of_the_named_pages_are_written(
    tiny_config, tiny_weights, start, length
):
    before, tables = _noise_cache(tiny_config), _tables(0)[[3, 1]]
    tokens = _tokens(tiny_config, 2, length)
    _, after = run_step(tiny_config, tiny_weights, tokens, _at(*start), before, tables)
    written = np.zeros((NUM_PAGES, PAGE_SIZE), bool)
    for row in range(2):
        for position in range(start[row], start[row] + length):
            written[tables[row, position // PAGE_SIZE], position % PAGE_SIZE] = True
    for old_layer, new_layer in zip(before, after, strict=True):
        for old, new in zip(old_layer, new_layer, strict=True):
            changed = (np.asarray(old) != np.asarray(new)).any(axis=(2, 3))
            np.testing.assert_array_equal(changed, written)


@pytest.mark.parametrize("length", [3, 8])
def test_padding_past_the_end_of_a_table_goes_to_the_scratch_page(
    tiny_config, tiny_weights, length
):
    before, table = _noise_cache(tiny_config), _tables(0)[:1, :2]
    start = 2 * PAGE_SIZE if length % PAGE_SIZE == 0 else 2 * PAGE_SIZE - 1
    tokens = _tokens(tiny_config, 1, length)
    _, after = run_step(tiny_config, tiny_weights, tokens, _at(start), before, table)
    changed = {
        int(page)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        for page in np.flatnonzero((np.asarray(old) != np.asarray(new)).any(axis=(1, 2, 3)))
    }
    assert changed == {SCRATCH_PAGE} | ({int(table[0, 1])} if start < 2 * PAGE_SIZE else set())


def test_which_pages_and_what_was_in_them_changes_no_bit(tiny_config, tiny_weights):
    tokens, start = _tokens(tiny_config, 2, 8), _at(0, 0)
    caches = (init_cache(tiny_config, NUM_PAGES, PAGE_SIZE), _noise_cache(tiny_config))
    empty, noisy = (
        run_step(tiny_config, tiny_weights, tokens, start, cache, _tables(seed)[:2])[0]
        for seed, cache in enumerate(caches)
    )
    np.testing.assert_array_equal(empty, noisy)


def test_rows_that_share_a_prefix_share_its_pages(tiny_config):
    weights, tokens, expected = _sequences(tiny_config, 3)
    cache = _noise_cache(tiny_config)
    tables = _tables(1)
    _, cache = run_step(tiny_config, weights, tokens[:1, :8], _at(0), cache, tables[:1])
    shared = tables[:2].copy()
    shared[1, :2] = shared[0, :2]
    both = np.stack([tokens[0, 8:11]] * 2)
    hidden, _ = run_step(tiny_config, weights, both, _at(8, 8), cache, shared)
    for row in hidden:
        np.testing.assert_allclose(row, expected[0, 8:11], atol=MAX_HIDDEN_DIFFERENCE)


def test_more_tokens_than_are_written_one_by_one_equal_the_whole_sequence(tiny_config):
    rows = kv_cache._MAX_UNROLLED_TOKENS // 3 + 1
    config = dataclasses.replace(tiny_config, num_layers=1)
    weights = numpy_palm.random_weights(config, 2)
    tokens = _tokens(config, rows, 6)
    pages = np.random.default_rng(0).permutation(np.arange(1, 2 * rows + 1, dtype=np.int32))
    cache = _noise_cache(config, 2 * rows + 1)
    found = []
    for start in (0, 3):
        hidden, cache = run_step(
            config,
            weights,
            tokens[:, start : start + 3],
            np.full(rows, start, np.int32),
            cache,
            pages.reshape(rows, 2),
        )
        found.append(hidden)
    np.testing.assert_allclose(
        np.concatenate(found, axis=1),
        run_hidden(config, weights, tokens),
        atol=MAX_HIDDEN_DIFFERENCE,
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8])
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
    cache = init_cache(tiny_config, NUM_PAGES, PAGE_SIZE, jnp.bfloat16)
    hidden, cache = run_step(tiny_config, weights, tokens, _at(0, 0), cache, _tables(0)[:2])
    assert hidden.dtype == jnp.bfloat16
    assert cache[0][0].dtype == jnp.bfloat16
    expected = run_hidden(tiny_config, weights, tokens).astype(jnp.float32)
    np.testing.assert_allclose(hidden.astype(jnp.float32), expected, atol=12 * 2**-9 * 3)


def test_an_int8_cache_gives_nearly_the_same_hidden_states(tiny_config, tiny_weights):
    tokens = _tokens(tiny_config, 2, 12)
    cache = init_cache(tiny_config, NUM_PAGES, PAGE_SIZE, jnp.int8)
    found = []
    for at in range(0, 12, 4):
        hidden, cache = run_step(
            tiny_config, tiny_weights, tokens[:, at : at + 4], _at(at, at), cache, _tables(0)[:2]
        )
        found.append(hidden)
    expected = run_hidden(tiny_config, tiny_weights, tokens)
    assert cache[0][0].dtype == jnp.int8
    # Keys and values are off by half of 1/127 of a head's largest.
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=0.05)


def test_nan_stays_in_its_request_and_does_not_outlive_it(tiny_config, tiny_weights):
    cache, tables = init_cache(tiny_config, NUM_PAGES, PAGE_SIZE), _tables(0)
    tokens = _tokens(tiny_config, 1, 8)
    clean, _ = run_step(tiny_config, tiny_weights, tokens, _at(0), cache, tables[:1])
    # An id out of range embeds as NaN; its request fills pages of row 0 and the scratch page.
    broken = np.full((1, 12), 99, np.int32)
    wide = np.concatenate([tables[:1, :2], tables[:1, 2:]], axis=1)
    _, cache = run_step(tiny_config, tiny_weights, broken, _at(0), cache, wide[:, :2])
    assert np.isnan(np.asarray(cache[0][1][SCRATCH_PAGE])).any()
    for row in (0, 1):
        found, _ = run_step(tiny_config, tiny_weights, tokens, _at(0), cache, tables[row : row + 1])
        np.testing.assert_array_equal(found, clean)
