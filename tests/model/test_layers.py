"""The parts of a block against their definitions, values and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.layers import FeedForward, layer_norm
from model.linear import project
from model.parameters import declare_parameters
from model.rope import rotary_angles, rotate

STYLES = ("interleaved", "half")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def _normal(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def test_layer_norm_centres_and_scales_also_far_from_zero(rng):
    x = 1000 + rng.standard_normal((2, 3, 64))
    scale, bias = rng.standard_normal((2, 64))
    x32 = x.astype(np.float32).astype(np.float64)
    expected = (x32 - x32.mean(-1, keepdims=True)) / np.sqrt(x32.var(-1, keepdims=True) + 1e-5)
    found = layer_norm(*(jnp.asarray(value, jnp.float32) for value in (x, scale, bias)), 1e-5)
    np.testing.assert_allclose(found, expected * scale + bias, atol=5e-4)


def test_layer_norm_of_a_constant_is_the_bias(rng):
    bias = _normal(rng, 8)
    found = layer_norm(jnp.full((1, 2, 8), 7.0), jnp.ones(8), bias, 1e-5)
    np.testing.assert_array_equal(found, np.broadcast_to(bias, (1, 2, 8)))


def test_layer_norm_keeps_bfloat16_and_computes_in_float32(rng):
    x = _normal(rng, 2, 3, 64).astype(jnp.bfloat16)
    found = layer_norm(x, jnp.ones(64, jnp.bfloat16), None, 1e-5)
    exact = layer_norm(x.astype(jnp.float32), jnp.ones(64), None, 1e-5)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_rotary_angles_follow_the_definition():
    cos, sin = rotary_angles(jnp.array([[0, 1, 2047]]), 8, 10_000.0)
    angles = np.array([0, 1, 2047])[:, None] * 10_000.0 ** (-np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(cos[0], np.cos(angles), atol=3e-4)
    np.testing.assert_allclose(sin[0], np.sin(angles), atol=3e-4)


@pytest.mark.parametrize("style", STYLES)
def test_position_zero_is_not_rotated(rng, style):
    heads = _normal(rng, 2, 1, 3, 8)
    angles = rotary_angles(jnp.zeros((2, 1), jnp.int32), 8, 10_000.0)
    np.testing.assert_array_equal(rotate(heads, angles, style), heads)


@pytest.mark.parametrize("style", STYLES)
def test_rotation_keeps_lengths_and_dtype(rng, style):
    heads = _normal(rng, 1, 5, 2, 8)
    angles = rotary_angles(jnp.arange(5)[None] * 100, 8, 10_000.0)
    rotated = rotate(heads, angles, style)
    np.testing.assert_allclose(
        np.linalg.norm(rotated, axis=-1), np.linalg.norm(heads, axis=-1), rtol=1e-5
    )
    assert rotate(heads.astype(jnp.bfloat16), angles, style).dtype == jnp.bfloat16


@pytest.mark.parametrize("style", STYLES)
def test_scores_depend_on_the_distance_alone(rng, style):
    query, key = _normal(rng, 2, 1, 1, 1, 16)

    def score(query_at: int, key_at: int) -> float:
        turned = [
            rotate(head, rotary_angles(jnp.array([[at]]), 16, 10_000.0), style)
            for head, at in ((query, query_at), (key, key_at))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_the_two_styles_are_one_rotation_in_another_order(rng):
    heads = _normal(rng, 2, 4, 3, 8)
    angles = rotary_angles(jnp.tile(jnp.arange(4), (2, 1)), 8, 10_000.0)
    to_half = np.r_[0:8:2, 1:8:2]
    np.testing.assert_array_equal(
        rotate(heads, angles, "interleaved")[..., to_half],
        rotate(heads[..., to_half], angles, "half"),
    )


@pytest.mark.parametrize(
    ("in_shape", "out_shape"),
    [((6,), (10,)), ((10,), (6,)), ((6,), (3, 4)), ((3, 4), (6,)), ((2, 3), (9,))],
)
def test_project_and_its_gradients_are_those_of_a_plain_product(rng, in_shape, out_shape):
    x, kernel = _normal(rng, 2, 5, *in_shape), _normal(rng, *in_shape, *out_shape)
    axes = len(in_shape)

    def ours(x, kernel):
        return project(x, kernel, in_axes=axes)

    def plain(x, kernel):
        return jnp.tensordot(x, kernel, axes=axes)

    found, pull_back = jax.vjp(ours, x, kernel)
    expected, plain_pull_back = jax.vjp(plain, x, kernel)
    assert found.shape == (2, 5, *out_shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    direction = _normal(rng, *found.shape)
    for ours_gradient, gradient in zip(
        pull_back(direction), plain_pull_back(direction), strict=True
    ):
        np.testing.assert_allclose(ours_gradient, gradient, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("gated", [True, False])
def test_feed_forward_saturates_without_overflow(tiny_config, activation, gated):
    config = dataclasses.replace(tiny_config, activation=activation, gated=gated)
    layer = FeedForward(config, nnx.Rngs(0))
    for size in (0.0, 1e4, -1e4):
        assert np.isfinite(layer(jnp.full((1, 1, config.d_model), size))).all()
    assert not np.asarray(layer(jnp.zeros((1, 1, config.d_model)))).any()


def test_logical_axes_name_what_each_size_is(tiny_config):
    sizes = {
        "vocab": tiny_config.vocab_size,
        "model": tiny_config.d_model,
        "heads": tiny_config.num_heads,
        "kv_heads": tiny_config.num_kv_heads,
        "head_dim": tiny_config.head_dim,
        "ff": tiny_config.d_ff,
    }
    for name, spec in declare_parameters(tiny_config).items():
        assert spec.shape == tuple(sizes[axis] for axis in spec.axes), name
