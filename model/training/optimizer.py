"""PaLM's optimizer (section 5): Adafactor without factorization, with a dynamic weight decay."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from model.training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of update k, counted from 0.

    Held, then falling with 1/sqrt(k) so that both parts meet (the paper's 1e-2 for 10,000 steps
    then 1/sqrt(k)), times a linear fall to zero over the last `cooldown_steps`.
    """

    def schedule(count: jax.Array | int) -> jax.Array:
        step = jnp.asarray(count, jnp.float32) + 1.0
        rate = config.learning_rate * jnp.sqrt(
            config.hold_steps / jnp.maximum(step, config.hold_steps)
        )
        if config.cooldown_steps:
            left = (total_steps - step + 1.0) / config.cooldown_steps
            rate = rate * jnp.clip(left, 0.0, 1.0)
        return rate

    return schedule


def dynamic_weight_decay(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Add lr² · parameter to the (still positive) update, as PaLM's decay of lr² does."""

    def init(params: optax.Params) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates,
        state: optax.ScaleByScheduleState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.ScaleByScheduleState]:
        rate = schedule(state.count) ** 2
        decayed = jax.tree.map(lambda u, p: u + rate * p, updates, params)
        return decayed, optax.ScaleByScheduleState(count=state.count + 1)

    return optax.GradientTransformation(init, update)


# A compiled step is bound to the very functions made here: an equal config gets the same ones.
@functools.cache
def palm_adafactor(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """The whole update rule.

    For gradient g of parameter p at step k (from 1): clip the global norm of g; divide by
    sqrt(v), where v ← β2·v + (1-β2)·g² with β2 = 1 - k^-0.8; clip the RMS of that to 1
    (Adafactor's own update clipping); scale by the learning rate and by RMS(p); average with
    momentum β1; add lr²·p.
    """
    schedule = learning_rate(config, total_steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_factored_rms(factored=False, decay_rate=config.beta2_power),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_schedule(schedule),
        optax.scale_by_param_block_rms(),
        optax.ema(config.beta1, debias=False),
        dynamic_weight_decay(schedule),
        optax.scale(-1.0),
    )
