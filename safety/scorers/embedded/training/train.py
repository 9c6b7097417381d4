"""Trains the embedded scorer: `python -m safety.scorers.embedded.training.train --help`."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.embedded.training import word_vectors
from safety.scorers.embedded.training.batches import NUM_BUCKETS, Encoder, padded_pieces
from safety.scorers.embedded.training.calibration import calibration
from safety.scorers.embedded.training.examples import Examples, Recipe, collect
from safety.scorers.embedded.training.network import EmbeddedNetwork
from safety.scorers.embedded.weights import save_weights

Floats = NDArray[np.float32]


def spelling(vocabulary: Sequence[str], vectors: Floats, seed: int, steps: int = 250) -> Floats:
    """Vectors of pieces whose mean is near their word's: float32[buckets, embedding]."""
    table = np.stack([padded_pieces(word) for word in vocabulary])
    pieces = jnp.zeros((NUM_BUCKETS, vectors.shape[1]), jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.3, steps))
    state = optimizer.init(pieces)
    chance = np.random.default_rng(seed)

    @jax.jit
    def step(
        pieces: jax.Array, state: optax.OptState, rows: jax.Array, wanted: jax.Array
    ) -> tuple[jax.Array, optax.OptState]:
        def loss(pieces: jax.Array) -> jax.Array:
            have = (rows >= 0).astype(jnp.float32)[..., None]
            mean = (pieces[jnp.maximum(rows, 0)] * have).sum(1) / have.sum(1)
            return jnp.asarray(((mean - wanted) ** 2).mean())

        updates, state = optimizer.update(jax.grad(loss)(pieces), state)
        return jnp.asarray(optax.apply_updates(pieces, updates)), state

    for _ in range(steps):
        chosen = chance.integers(len(vocabulary), size=1024)
        pieces, state = step(pieces, state, table[chosen], vectors[chosen])
    return np.asarray(pieces)


def fit(network: EmbeddedNetwork, encoder: Encoder, examples: Examples, recipe: Recipe) -> None:
    """Train in place; prints the loss of each epoch."""
    encoded = [encoder.encode(text) for text in examples.texts]
    num_steps = recipe.epochs * len(encoded) // recipe.batch
    rate = optax.warmup_cosine_decay_schedule(0.0, 1.0, num_steps // 20, num_steps, 0.02)
    transform = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.partition(
            {
                "vectors": optax.adam(lambda step: 0.5 * recipe.learning_rate * rate(step)),
                "layers": optax.adamw(
                    lambda step: recipe.learning_rate * rate(step), weight_decay=0.01
                ),
            },
            lambda parameters: nnx.map_state(
                lambda path, value: "vectors" if path[0] == "words" else "layers",
                parameters,
            ),
        ),
    )
    optimizer = nnx.Optimizer(network, transform, wrt=nnx.Param)

    @nnx.jit
    def step(
        network: EmbeddedNetwork,
        optimizer: nnx.Optimizer[EmbeddedNetwork],
        arrays: tuple[jax.Array, jax.Array, jax.Array],
        targets: jax.Array,
        weights: jax.Array,
    ) -> jax.Array:
        def loss(network: EmbeddedNetwork) -> jax.Array:
            losses = optax.sigmoid_binary_cross_entropy(network(*arrays), targets)
            return jnp.asarray((losses * weights).sum() / weights.sum())

        value, gradients = nnx.value_and_grad(loss)(network)
        optimizer.update(network, gradients)
        return jnp.asarray(value)

    chance = np.random.default_rng(recipe.seed)
    for epoch in range(recipe.epochs):
        started, losses = time.monotonic(), []
        network.set_attributes(deterministic=False)
        for known, unknown, positions, chosen in encoder.batches(
            encoded, recipe.batch, chance, train=True
        ):
            losses.append(
                step(
                    network,
                    optimizer,
                    (jnp.asarray(known), jnp.asarray(unknown), jnp.asarray(positions)),
                    jnp.asarray(examples.targets[chosen]),
                    jnp.asarray(examples.weights[chosen]),
                )
            )
        mean = float(np.mean(np.asarray(losses)))
        print(f"epoch {epoch + 1}: loss {mean:.4f}, {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "corpus", "words", "teacher", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for field in dataclasses.fields(Recipe):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    arguments = vars(parser.parse_args())
    paths = {name: arguments.pop(name) for name in ("data", "corpus", "words", "teacher", "out")}
    recipe = Recipe(**arguments)
    vocabulary, vectors = word_vectors.read(paths["words"])
    examples = collect(recipe, paths["data"], paths["corpus"], paths["teacher"], vocabulary)
    print(f"{len(examples.texts):,} texts", flush=True)
    network = EmbeddedNetwork(
        vectors,
        spelling(vocabulary, vectors, recipe.seed),
        recipe.width,
        nnx.Rngs(recipe.seed),
    )
    fit(network, Encoder(vocabulary), examples, recipe)
    pieces = spelling(vocabulary, np.asarray(network.words[...]), recipe.seed)
    as_they_are = np.tile(np.array([1, 0], np.float32), (len(TOXICITY_LABELS), 1))
    weights = network.weights(vocabulary, pieces, as_they_are, recipe.version)
    save_weights(weights, paths["out"])
    lines = calibration(paths["out"], paths["data"])
    save_weights(dataclasses.replace(weights, calibration=lines), paths["out"])
    for label, (slope, offset) in zip(TOXICITY_LABELS, lines.tolist(), strict=True):
        print(f"{label}: slope {slope:.2f}, offset {offset:+.2f}")


if __name__ == "__main__":
    main()
