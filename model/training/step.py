"""The loss and one optimizer step, compiled for a batch shape and a mesh."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from model.palm import Params, forward_hidden, unembed
from model.training.loss import cross_entropy_sums

if TYPE_CHECKING:
    from model.config import PaLMConfig


class TrainState(NamedTuple):
    """All that a step reads and writes."""

    params: Params
    optimizer: optax.OptState


class StepMetrics(NamedTuple):
    """What a step reports; float32 scalars.

    Attributes:
        loss: Cross-entropy in nats per token, without the z-loss.
        z_loss: The weighted z-loss.
        grad_norm: Global norm of the gradient before clipping.
    """

    loss: jax.Array
    z_loss: jax.Array
    grad_norm: jax.Array


@functools.partial(
    jax.jit, static_argnames=("config", "optimizer", "z_weight", "dtype"), donate_argnums=0
)
def train_step(
    state: TrainState,
    windows: jax.Array,
    *,
    config: PaLMConfig,
    optimizer: optax.GradientTransformation,
    z_weight: float,
    dtype: str = "float32",
) -> tuple[TrainState, StepMetrics]:
    """One update from windows, int32[B, T + 1]; loss = cross-entropy + z_weight · log²Z.

    Matrix products run in `dtype`; the weights that are kept, activations and sums are float32.
    """

    def objective(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        hidden = forward_hidden(config, _with_kernels_in(dtype, params), windows[:, :-1])
        scaled = hidden.reshape(-1, config.d_model) * jnp.asarray(
            config.resolved_logit_scale, hidden.dtype
        )
        table = params["embedding"] if config.tied_embeddings else params["head"]
        targets = windows[:, 1:].reshape(-1)
        entropy, squares = cross_entropy_sums(scaled, table.astype(dtype), targets, z_weight)
        # The z-loss's gradient already rides on the cross-entropy's.
        loss = entropy / targets.size
        return loss, (loss, z_weight * squares / targets.size)

    gradients: Any
    (_, (loss, z_loss)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = StepMetrics(loss, z_loss, optax.tree.norm(gradients))
    return TrainState(params, optimizer_state), metrics


def _with_kernels_in(dtype: str, params: Params) -> Params:
    """The parameters with every matrix of the layers in `dtype`: norms and embedding stay."""
    layers = jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, params["layers"])
    return {**params, "layers": layers}


@functools.partial(jax.jit, static_argnames=("config",))
def evaluate_step(params: Params, windows: jax.Array, *, config: PaLMConfig) -> jax.Array:
    """float32[B, T] cross-entropy in nats of windows, int32[B, T + 1]."""
    logits = unembed(config, params, forward_hidden(config, params, windows[:, :-1]))
    target = jnp.take_along_axis(logits, windows[:, 1:, None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - target
