"""The fused step against the plain one: the same numbers, but for the rounding of its weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import kernels
from model.config import PaLMConfig
from model.fused import can_fuse, fuse, fused_step, fused_unembed, quantize_columns
from model.kv_cache import init_cache
from model.palm import forward_step, unembed
from tests.model import numpy_palm

ROWS, LENGTH, PAGE_SIZE = 2, 12, 4
# Relative to the largest value: bfloat16 keeps 8 bits; int8 rounds weights and activations to 7;
# float32 sums in another order.
LIMITS = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.06}

run_step = jax.jit(forward_step, static_argnums=0)
run_fused = jax.jit(fused_step, static_argnums=0)

SHAPES = {
    "palm": {},
    "gqa, q/k norm": {"num_kv_heads": 2, "qk_norm": True, "rope_style": "half"},
    "plain gelu, biased norm": {"gated": False, "activation": "gelu", "norm_bias": True},
    "untied": {"tied_embeddings": False, "logit_scale": 0.5},
}


@pytest.fixture(scope="module", params=list(SHAPES))
def config(request) -> PaLMConfig:
    return PaLMConfig(
        vocab_size=150,
        num_layers=2,
        d_model=64,
        num_heads=4,
        head_dim=16,
        d_ff=96,
        max_seq_len=64,
        **SHAPES[request.param],
    )


def _step_inputs(config):
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, LENGTH), dtype=np.int32)
    width = LENGTH // PAGE_SIZE
    pages = 1 + np.arange(ROWS * width, dtype=np.int32).reshape(ROWS, width)
    cache = init_cache(config, 1 + pages.size, PAGE_SIZE)
    return tokens, np.zeros(ROWS, np.int32), cache, pages


def test_the_kernels_are_here():
    assert kernels.is_available(), kernels.status().reason


@pytest.mark.parametrize("form", list(LIMITS))
def test_hidden_states_cache_and_logits_are_near_the_plain_ones(config, form):
    weights = numpy_palm.random_weights(config, seed=4)
    params = fuse(config, weights, form)
    expected, expected_cache = run_step(config, weights, *_step_inputs(config))
    found, cache = run_fused(config, params, *_step_inputs(config))
    # The first layer's cache has been through one rounded product, the hidden states through all.
    pairs = [(found, expected), (cache[0][0], expected_cache[0][0])]
    flat = [states.reshape(-1, config.d_model) for states in (found, expected)]
    pairs.append((fused_unembed(config, params, flat[0]), unembed(config, weights, flat[1])))
    for ours, plain in pairs:
        limit = LIMITS[form] * float(jnp.max(jnp.abs(plain)))
        np.testing.assert_allclose(ours, plain, atol=limit)


@pytest.mark.parametrize("form", list(LIMITS))
def test_a_rows_bits_do_not_depend_on_how_it_is_taken_in(config, form):
    params = fuse(config, numpy_palm.random_weights(config, seed=4), form)
    tokens, start, cache, pages = _step_inputs(config)
    whole, whole_cache = run_fused(config, params, tokens, start, cache, pages)
    cache = init_cache(config, 1 + pages.size, PAGE_SIZE)
    for at in range(LENGTH):
        hidden, cache = run_fused(
            config, params, tokens[1:, at : at + 1], start[1:] + at, cache, pages[1:]
        )
        np.testing.assert_array_equal(hidden[0, 0], whole[1, at])
    for mine, theirs in zip(jax.tree.leaves(cache), jax.tree.leaves(whole_cache), strict=True):
        np.testing.assert_array_equal(mine[pages[1]], theirs[pages[1]])


def test_float32_weights_are_held_once(config):
    # The embedding is the head's columns where they are tied; the rotary angles are no weights.
    weights = numpy_palm.random_weights(config, seed=4)
    params = dataclasses.replace(fuse(config, weights, "float32"), turns=jnp.zeros(0))
    held = sum(array.size for array in jax.tree.leaves(params))
    widths = [matrix.columns for block in params.layers for matrix in (block.into, block.out)]
    panels = [-columns % kernels.PANEL_COLUMNS for columns in widths]
    rows = [block_rows for _ in params.layers for block_rows in _inner_sizes(config)]
    padding = sum(map(int.__mul__, panels, rows))
    padding += -config.vocab_size % kernels.PANEL_COLUMNS * config.d_model
    assert held == sum(np.size(array) for array in jax.tree.leaves(weights)) + padding


def _inner_sizes(config):
    return config.d_model, config.num_heads * config.head_dim + config.d_ff


def test_embeddings_come_back_exactly(config):
    weights = numpy_palm.random_weights(config, seed=4)
    tokens = jnp.asarray([[0, 63], [64, config.vocab_size - 1]], jnp.int32)
    for form in LIMITS:
        found = fuse(config, weights, form).embed(tokens)
        np.testing.assert_array_equal(found, np.asarray(weights["embedding"])[tokens])


def test_int8_weights_come_back_exactly():
    # Symmetric scales by output channel, as an int8 checkpoint stores them.
    rng = np.random.default_rng(1)
    values = rng.integers(-127, 128, (40, 7)).astype(np.int8)
    values[0] = 127
    scale = rng.uniform(0.01, 2.0, 7).astype(np.float32)
    found, found_scale = quantize_columns(jnp.asarray(values * scale))
    np.testing.assert_array_equal(found, values)
    np.testing.assert_allclose(found_scale, scale, rtol=1e-6)


def test_a_column_of_zeros_stays_zero():
    found, scale = quantize_columns(jnp.zeros((3, 2)))
    assert not np.asarray(found).any()
    assert np.isfinite(np.asarray(scale)).all()


def test_two_norms_in_a_block_are_refused(tiny_config):
    config = dataclasses.replace(tiny_config, separate_mlp_norm=True)
    assert not can_fuse(config)
    with pytest.raises(ValueError, match="norm of its own"):
        fuse(config, numpy_palm.random_weights(config, seed=0), "int8")


def test_the_form_of_the_weights_is_kept(config):
    weights = numpy_palm.random_weights(config, seed=4)
    matrix = fuse(config, weights, "int8").layers[0].into
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    assert matrix.columns == heads + config.d_ff * (2 if config.gated else 1)
    assert matrix.packed.dtype == jnp.uint8
    assert functools.reduce(int.__mul__, matrix.packed.shape) < 2 * config.d_model * matrix.columns
