"""The forward pass against an independent one, and the cached one against the forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PaLMConfig
from model.palm import forward, forward_hidden, unembed
from tests.model import numpy_palm

MAX_LOGIT_DIFFERENCE = 1e-4

run_forward = jax.jit(forward, static_argnums=0)
run_hidden = jax.jit(forward_hidden, static_argnums=0)

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
    tokens = _tokens(config, 2, 16)
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


@settings(max_examples=8, derandomize=True)
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
    tokens = _tokens(tiny_config, 2, 16)
    found = run_forward(tiny_config, weights, tokens)
    assert found.dtype == jnp.float32
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), weights)
    expected = numpy_palm.logits(tiny_config, rounded, tokens)
    # bfloat16 has 8 bits: a rounding is 2**-9 of the value, and a residual path has a dozen.
    np.testing.assert_allclose(found, expected, rtol=0, atol=12 * 2**-9 * np.abs(expected).max())


def test_unembed_of_hidden_is_forward(tiny_config, tiny_weights):
    tokens = _tokens(tiny_config, 2, 16)
    hidden = run_hidden(tiny_config, tiny_weights, tokens)
    assert hidden.shape == (2, 16, tiny_config.d_model)
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
    tokens = _tokens(tiny_config, 2, 16)
    others = tokens.copy()
    others[0] = _tokens(tiny_config, 16, seed=9)
    before, after = (run_forward(tiny_config, tiny_weights, row) for row in (tokens, others))
    np.testing.assert_array_equal(before[1], after[1])


# Ids are checked where they enter, not here: a compiled program cannot raise. These tests say what
# an id that slipped through would do, so that nobody relies on anything better.


@pytest.mark.parametrize("beyond", [53, 2**31 - 1, -54])
def test_an_id_outside_the_table_makes_its_whole_row_nan_and_no_other(
    tiny_config, tiny_weights, beyond
):
    tokens = _tokens(tiny_config, 2, 16)
    clean = run_forward(tiny_config, tiny_weights, tokens)
    tokens[0, 3] = beyond
    found = run_forward(tiny_config, tiny_weights, tokens)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], clean[1])


def test_a_negative_id_counts_from_the_end_of_the_table(tiny_config, tiny_weights):
    found, expected = (
        run_forward(tiny_config, tiny_weights, np.full((2, 16), token, np.int32))
        for token in (-1, tiny_config.vocab_size - 1)
    )
    np.testing.assert_array_equal(found, expected)
