"""The update rule against an independent one, and the learning rate over a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.training.config import OptimizerConfig
from model.training.optimizer import learning_rate, palm_adafactor
from tests.model.training.numpy_adafactor import NumpyAdafactor

STEPS = 20
SHAPES = {"matrix": (12, 7), "kernel": (5, 2, 4), "scale": (16,), "small": (3, 3)}
CONFIG = OptimizerConfig(learning_rate=0.05, hold_steps=6, cooldown_steps=5)


def _normal(rng: np.random.Generator, scales: dict[str, float]) -> dict[str, np.ndarray]:
    return {
        name: (scales[name] * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def _as_float64(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def _expected_rate(step: int) -> float:
    """Of step 1 to STEPS, spelled out."""
    rate = 0.05 if step <= 6 else 0.05 * (6 / step) ** 0.5
    return rate * min(1.0, (STEPS - step + 1) / 5)


def test_updates_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    # The last is below Adafactor's smallest scale.
    params = _normal(rng, {"matrix": 1.0, "kernel": 0.2, "scale": 3.0, "small": 1e-4})
    expected = _as_float64(params)
    reference = NumpyAdafactor(beta1=0.9, beta2_power=0.8, clip_norm=1.0)
    optimizer = palm_adafactor(CONFIG, STEPS)
    state = optimizer.init(jax.tree.map(jnp.asarray, params))
    update = jax.jit(optimizer.update)
    for step in range(1, STEPS + 1):
        # Gradients that grow on some steps are clipped, and pass what the second moments expect.
        size = 0.5 if step % 4 == 0 else 0.02
        gradients = _normal(rng, dict.fromkeys(SHAPES, size))
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        rate = _expected_rate(step)
        expected = reference.update(expected, _as_float64(gradients), rate)
    assert 0 < reference.norm_clips < STEPS
    assert 0 < reference.update_clips < STEPS * len(SHAPES)
    for name, array in params.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-9, err_msg=name)


def test_a_parameter_of_zeros_moves():
    optimizer = palm_adafactor(CONFIG, STEPS)
    params = {"bias": jnp.zeros(4)}
    updates, _ = optimizer.update({"bias": jnp.ones(4)}, optimizer.init(params), params)
    # Momentum lets a tenth of the first step through; the scale is Adafactor's smallest.
    np.testing.assert_allclose(updates["bias"], -0.1 * 0.05 * 1e-3, rtol=1e-5)


def test_an_equal_config_gets_the_same_functions():
    again = OptimizerConfig(learning_rate=0.05, hold_steps=6, cooldown_steps=5)
    assert palm_adafactor(CONFIG, STEPS) is palm_adafactor(again, STEPS)
    assert palm_adafactor(CONFIG, STEPS) is not palm_adafactor(CONFIG, STEPS + 1)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(1, 1e-2), (5_000, 1e-2), (10_000, 1e-2), (40_000, 5e-3), (255_000, 255_000**-0.5)],
)
def test_the_papers_rate_is_held_and_then_the_inverse_root_of_the_step(step, rate):
    schedule = learning_rate(OptimizerConfig(), total_steps=255_000)
    np.testing.assert_allclose(schedule(step - 1), rate, rtol=1e-6)


def test_both_parts_of_the_schedule_meet():
    schedule = learning_rate(OptimizerConfig(hold_steps=100), total_steps=1000)
    rates = np.asarray([schedule(count) for count in range(98, 104)])
    assert rates[0] == rates[1]
    assert (np.diff(rates[1:]) < 0).all()
    np.testing.assert_allclose(rates[2] / rates[1], (100 / 101) ** 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "share"), [(60, 1.0), (61, 1.0), (81, 0.5), (99, 0.05), (100, 0.025), (101, 0.0)]
)
def test_the_last_steps_fall_linearly_to_zero(step, share):
    config = OptimizerConfig(learning_rate=0.3, hold_steps=1000, cooldown_steps=40)
    rate = learning_rate(config, total_steps=100)(step - 1)
    np.testing.assert_allclose(rate, 0.3 * share, rtol=1e-6)
