"""The chunked loss and a whole training step against dense computations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PaLMConfig
from model.palm import forward, init_parameters
from model.training.config import OptimizerConfig
from model.training.loss import cross_entropy_sums
from model.training.optimizer import palm_adafactor
from model.training.step import TrainState, train_step
from tests.model.training.settings import MODEL

Z_WEIGHT = 0.05


def _inputs(tokens: int, width: int, vocab: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((tokens, width)).astype(np.float32)
    table = rng.standard_normal((vocab, width)).astype(np.float32)
    return hidden, table, rng.integers(0, vocab, tokens, dtype=np.int32)


def _dense(
    hidden: np.ndarray, table: np.ndarray, targets: np.ndarray, z_weight: float
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Both sums and both gradients in float64, all logits at once."""
    hidden, table = hidden.astype(np.float64), table.astype(np.float64)
    logits = hidden @ table.T
    log_z = np.log(np.exp(logits).sum(axis=1))
    rows = np.arange(len(targets))
    slope = np.exp(logits - log_z[:, None])
    slope *= (1 + 2 * z_weight * log_z)[:, None]
    slope[rows, targets] -= 1
    entropy = float((log_z - logits[rows, targets]).sum())
    return entropy, float((log_z**2).sum()), slope @ table, slope.T @ hidden


def _assert_dense(tokens: int, width: int, vocab: int, z_weight: float, seed: int = 0) -> None:
    hidden, table, targets = _inputs(tokens, width, vocab, seed)
    (entropy, squares), pull = jax.vjp(
        lambda h, t: cross_entropy_sums(h, t, targets, z_weight), hidden, table
    )
    gradients = pull((jnp.float32(1), jnp.float32(0)))
    expected = _dense(hidden, table, targets, z_weight)
    np.testing.assert_allclose(entropy, expected[0], rtol=1e-5)
    np.testing.assert_allclose(squares, expected[1], rtol=1e-5)
    for found, gradient in zip(gradients, expected[2:], strict=True):
        atol = 1e-6 * np.abs(gradient).max()
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=atol)


# One chunk, several short ones, one for each token, and several of the largest size.
@pytest.mark.parametrize("tokens", [16, 24, 7, 2048])
def test_chunks_add_up_to_the_dense_loss_and_gradients(tokens):
    _assert_dense(tokens, width=5, vocab=11, z_weight=Z_WEIGHT)


@settings(max_examples=8, derandomize=True)
@given(
    tokens=st.integers(1, 40),
    width=st.integers(1, 9),
    vocab=st.integers(2, 30),
    z_weight=st.sampled_from([0.0, 1e-4, 0.5]),
    seed=st.integers(0, 99),
)
def test_any_shape_has_the_dense_loss_and_gradients(tokens, width, vocab, z_weight, seed):
    _assert_dense(tokens, width, vocab, z_weight, seed)


def test_the_gradient_scales_with_the_loss_and_the_reported_squares_carry_none():
    hidden, table, targets = _inputs(16, 5, 11)

    def scaled(states: jax.Array) -> jax.Array:
        entropy, squares = cross_entropy_sums(states, jnp.asarray(table), targets, Z_WEIGHT)
        return 0.25 * entropy + 100 * squares

    expected = 0.25 * _dense(hidden, table, targets, Z_WEIGHT)[2]
    np.testing.assert_allclose(jax.grad(scaled)(hidden), expected, rtol=1e-4, atol=1e-6)


def test_large_logits_do_not_overflow():
    table = 1000 * jnp.eye(8)
    entropy, squares = cross_entropy_sums(jnp.eye(8), table, jnp.arange(8), 1e-4)
    assert float(entropy) == 0
    assert float(squares) == 8 * 1000**2


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def config(request) -> PaLMConfig:
    return PaLMConfig(**MODEL, tied_embeddings=request.param)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return np.random.default_rng(5).integers(0, MODEL["vocab_size"], (8, 17), dtype=np.int32)


def _step(config, state, windows, dtype="float32"):
    optimizer = palm_adafactor(OptimizerConfig(), 100)
    return train_step(
        state, windows, config=config, optimizer=optimizer, z_weight=Z_WEIGHT, dtype=dtype
    )


def _fresh_state(config: PaLMConfig) -> TrainState:
    params = init_parameters(config, jax.random.key(1))
    return TrainState(params, palm_adafactor(OptimizerConfig(), 100).init(params))


def test_a_step_reports_what_a_plain_dense_loss_gives(config, windows):
    def dense(params):
        logits = forward(config, params, windows[:, :-1])
        log_z = jax.nn.logsumexp(logits, axis=-1)
        wanted = jax.nn.one_hot(windows[:, 1:], config.vocab_size)
        loss = jnp.mean(log_z - jnp.sum(logits * wanted, axis=-1))
        z_loss = Z_WEIGHT * jnp.mean(jnp.square(log_z))
        return loss + z_loss, (loss, z_loss)

    state = _fresh_state(config)
    gradients, (loss, z_loss) = jax.jit(jax.grad(dense, has_aux=True))(state.params)
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(g, float))) for g in jax.tree.leaves(gradients)))
    _, metrics = _step(config, state, windows)
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.z_loss, z_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, norm, rtol=1e-4)


def test_a_batch_that_comes_again_and_again_is_learned(config, windows):
    state = _fresh_state(config)
    seen = []
    for _ in range(30):
        state, metrics = _step(config, state, windows)
        seen.append(float(metrics.loss))
    assert seen[-1] < seen[0] - 0.3


def test_mixed_precision_keeps_float32_weights_and_stays_near_float32(config, windows):
    exact, mixed = _fresh_state(config), _fresh_state(config)
    for _ in range(10):
        exact, expected = _step(config, exact, windows)
        mixed, found = _step(config, mixed, windows, "bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(mixed.params))
    # bfloat16 keeps 8 bits; the sums, the moments and the weights that are kept are float32.
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-2)
    np.testing.assert_allclose(found.grad_norm, expected.grad_norm, rtol=0.1)
    assert float(found.loss) != float(expected.loss)
