"""What an int8 cache keeps of a head, against the definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.kv_cache import dequantize_heads, quantize_heads
from tests.model.kernels import numpy_kernels


def test_a_head_comes_back_to_half_a_step():
    values = np.random.default_rng(0).normal(size=(5, 3, 40)).astype(np.float32)
    values[2] *= 1e-6
    found = np.asarray(dequantize_heads(jax.jit(quantize_heads)(values)))
    step = np.abs(values).max(axis=-1, keepdims=True) / 127
    assert (np.abs(found - values) <= step * 0.5001).all()


def test_it_is_the_definition_but_for_the_scales_last_bit():
    values = np.random.default_rng(1).normal(size=(7, 2, 24)).astype(np.float32)
    found = np.asarray(quantize_heads(jnp.asarray(values)))
    wanted = numpy_kernels.quantize_heads(values)
    np.testing.assert_array_equal(found[..., :-4], wanted[..., :-4])
    scales = [np.ascontiguousarray(part[..., -4:]).view(np.float32) for part in (found, wanted)]
    np.testing.assert_allclose(*scales, rtol=2e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_head_that_is_not_finite_is_nan_and_a_tiny_one_zero(bad: float):
    values = np.ones((3, 6), np.float32)
    values[0, 5] = bad
    values[1] = 1e-38
    found = np.asarray(dequantize_heads(quantize_heads(jnp.asarray(values))))
    assert np.isnan(found[0]).all()
    assert not found[1].any()
    np.testing.assert_allclose(found[2], 1.0, rtol=1e-6)


def test_bfloat16_heads_are_quantized_as_float32():
    values = jnp.asarray(np.random.default_rng(2).normal(size=(4, 8)), jnp.bfloat16)
    np.testing.assert_array_equal(
        quantize_heads(values), quantize_heads(values.astype(jnp.float32))
    )
