"""Trains the embedded scorer: `python -m safety.scorers.embedded.training.train --help`."""

from __future__ import annotations

import argparse
import dataclasses
import random
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
from safety.scorers.embedded.training.counterfactuals import Counterfactuals
from safety.scorers.embedded.training.network import EmbeddedNetwork
from safety.scorers.embedded.training.sources import LabelledText, labelled_texts, plain_texts
from safety.scorers.embedded.training.teacher import Teacher
from safety.scorers.embedded.weights import save_weights
from safety.scorers.embedded.words import split_words
from safety.scorers.normalise import normalised

Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the weights, besides the data.

    Attributes:
        version: Name of the weights.
        width: Of the network's layers.
        epochs: Passes over all texts.
        batch: Texts a step.
        learning_rate: Highest, of the network; half of it that of the word vectors.
        own_texts: Sentences made of our templates.
        plain_texts: Everyday sentences that only the teacher labels.
        probes: Texts with a word put into them, for what the teacher knows of that word.
        teacher_weight: Of the teacher's labels in the loss.
        joined_share: Texts that another text is joined to.
        seed: Of everything random.
    """

    version: str = "1"
    width: int = 80
    epochs: int = 6
    batch: int = 256
    learning_rate: float = 3e-3
    own_texts: int = 80_000
    plain_texts: int = 25_000
    probes: int = 50_000
    teacher_weight: float = 0.4
    joined_share: float = 0.2
    seed: int = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """Texts, float32[texts, labels] targets and their weights."""

    texts: list[str]
    targets: Floats
    weights: Floats


def probes(
    recipe: Recipe, teacher: Teacher, vocabulary: Sequence[str], texts: Sequence[str]
) -> list[LabelledText]:
    """Up to 25 words of a text with one of the vocabulary among them, toxic ones more often.

    The teacher has seen many more comments than our sets have: so it hands on what it knows of
    words that they have rarely or never.
    """
    chance = np.random.default_rng(recipe.seed)
    chances = teacher.label(vocabulary)[:, 0].astype(np.float64) ** 2 + 0.003
    chosen = chance.choice(len(vocabulary), recipe.probes, p=chances / chances.sum())
    made: list[LabelledText] = []
    for word in chosen.tolist():
        words = texts[int(chance.integers(len(texts)))].split()[: int(chance.integers(2, 26))]
        words.insert(int(chance.integers(len(words) + 1)), vocabulary[word])
        made.append(LabelledText(" ".join(words), "probe", {}))
    return made


def collect(
    recipe: Recipe, data: Path, corpus: Path, teacher: Path, vocabulary: Sequence[str]
) -> Examples:
    """All texts of one training with their labels."""
    labelled = labelled_texts(data)
    # The sets that Perspective labelled are small and the surest.
    labelled += [text for text in labelled if text.source in {"cat-gn", "cat-gc", "rtp"}]
    everyday = list(plain_texts(corpus))
    random.Random(recipe.seed).shuffle(everyday)
    labelled += [LabelledText(text, "plain", {}) for text in everyday[: recipe.plain_texts]]
    teaching = Teacher(teacher)
    labelled += probes(recipe, teaching, vocabulary, [text.text for text in labelled])
    own = list(Counterfactuals(recipe.seed).draw(recipe.own_texts))
    texts = labelled + own
    targets, weights = (np.stack(part) for part in zip(*(t.targets() for t in texts), strict=True))
    taught = np.array([text.is_taught for text in texts])
    named = _named_groups()
    # The teacher takes the names of some groups for toxic: there it is not asked.
    names_group = np.array([not named.isdisjoint(normalised(t.text).split()) for t in texts])
    opinions = teaching.label([text.text for text in texts])
    trust = np.where([text.source == "probe" for text in texts], 1.0, recipe.teacher_weight)
    asked = taught[:, None] & (weights == 0)
    asked[names_group] = False
    targets = np.where(asked, opinions, targets)
    weights = np.where(asked, trust[:, None], weights).astype(np.float32)
    return _joined(Examples([t.text for t in texts], targets, weights), everyday, recipe)


def _named_groups() -> set[str]:
    groups = Counterfactuals(0).names()
    return {word for name in groups for word in split_words(normalised(name))} - {"people", "the"}


def _joined(examples: Examples, everyday: Sequence[str], recipe: Recipe) -> Examples:
    """Some texts with another before or after them, so that a part decides about the whole."""
    chance = np.random.default_rng(recipe.seed)
    texts, targets, weights = list(examples.texts), examples.targets.copy(), examples.weights.copy()
    for index in np.flatnonzero(chance.random(len(texts)) < recipe.joined_share):
        if chance.random() < 0.5:
            other = everyday[int(chance.integers(len(everyday)))]
        else:
            at = int(chance.integers(len(texts)))
            other = examples.texts[at]
            targets[index] = np.maximum(examples.targets[index], examples.targets[at])
            weights[index] = np.minimum(examples.weights[index], examples.weights[at])
        pair = [examples.texts[index], other]
        texts[index] = " ".join(pair if chance.random() < 0.5 else pair[::-1])
    return Examples(texts, targets, weights)


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
    calibration = np.tile(np.array([1, 0], np.float32), (len(TOXICITY_LABELS), 1))
    pieces = spelling(vocabulary, np.asarray(network.words[...]), recipe.seed)
    save_weights(network.weights(vocabulary, pieces, calibration, recipe.version), paths["out"])


if __name__ == "__main__":
    main()
