"""Attention against its definition, whole and in causal blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import attention
from model.attention import attend, attend_causally


def _inputs(length: int, heads: int, kv_heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(length)
    sizes = ((2, length, heads, 6), (2, length, kv_heads, 6), (2, length, kv_heads, 6))
    query, keys, values = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in sizes)
    return query, keys, values


def _definition(query, keys, values, mask):
    """A query head at a time, in float64."""
    query, keys, values = (np.asarray(array, np.float64) for array in (query, keys, values))
    result = np.empty_like(query)
    group = query.shape[2] // keys.shape[2]
    for row in range(query.shape[0]):
        for head in range(query.shape[2]):
            scores = query[row, :, head] @ keys[row, :, head // group].T
            weights = np.where(mask, np.exp(scores), 0)
            weights /= weights.sum(-1, keepdims=True)
            result[row, :, head] = weights @ values[row, :, head // group]
    return result


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 1), (4, 2), (3, 3)])
def test_attention_is_a_weighted_mean_of_what_the_mask_lets_through(heads, kv_heads):
    query, keys, values = _inputs(9, heads, kv_heads)
    mask = np.random.default_rng(1).random((9, 9)) < 0.5
    np.fill_diagonal(mask, True)
    found = attend(query, keys, values, jnp.asarray(mask)[None])
    np.testing.assert_allclose(found, _definition(query, keys, values, mask), atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 24, 29])
def test_causal_blocks_are_the_triangular_mask(length, monkeypatch):
    monkeypatch.setattr(attention, "_CAUSAL_BLOCK", 8)
    query, keys, values = _inputs(length, 4, 2)
    mask = np.tril(np.ones((length, length), bool))
    found = attend_causally(query, keys, values)
    np.testing.assert_allclose(found, _definition(query, keys, values, mask), atol=1e-5)


def test_a_query_without_any_visible_key_stays_finite():
    query, keys, values = _inputs(3, 4, 2)
    assert np.isfinite(attend(query, keys, values, jnp.zeros((1, 3, 3), bool))).all()
