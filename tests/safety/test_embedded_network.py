from collections.abc import Iterator

import jax
import numpy as np
import pytest
from flax import nnx

from safety.scorers.embedded.forward import Network
from safety.scorers.embedded.training.batches import NUM_BUCKETS, Encoder
from safety.scorers.embedded.training.examples import Examples, Recipe
from safety.scorers.embedded.training.network import NUM_OUTPUTS, EmbeddedNetwork
from safety.scorers.embedded.training.train import fit, spelling
from safety.scorers.embedded.weights import load_weights, save_weights
from safety.scorers.embedded.words import pieces as bucket_numbers
from safety.scorers.embedded.words import split_words

VOCABULARY = ["you", "are", "good", "bad", "not", "."]


@pytest.fixture(autouse=True)
def _optax_promotes() -> Iterator[None]:
    """Optax's Adam raises floats to integer powers, which the strict rules refuse."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def _network(seed: int) -> tuple[EmbeddedNetwork, np.ndarray]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(len(VOCABULARY), 12)).astype(np.float32)
    pieces = random.normal(size=(NUM_BUCKETS, 12)).astype(np.float32)
    return EmbeddedNetwork(vectors, pieces, 16, nnx.Rngs(seed)), pieces


def test_numpy_computes_what_flax_does(tmp_path):
    network, pieces = _network(1)
    network.attention[...] = jax.random.normal(jax.random.key(3), (16,))
    calibration = np.tile(np.array([1, 0], np.float32), (6, 1))
    path = tmp_path / "weights.safetensors"
    save_weights(network.weights(VOCABULARY, pieces, calibration, "t"), path)

    texts = ["you are good.", "you", "are you not unbelievably bad . " * 6, "zug qop"]
    encoder = Encoder(VOCABULARY)
    network.eval()
    expected = np.zeros((len(texts), 6), np.float32)
    random = np.random.default_rng(0)
    for known, unknown, positions, chosen in encoder.batches(
        [encoder.encode(text) for text in texts], 4, random, train=False
    ):
        logits = np.asarray(network(known, unknown, positions))
        # The teacher's opinions, which stand behind the labels, are not shipped.
        expected[chosen] = logits[: len(chosen), :6]
    actual = Network(load_weights(path)).logits([split_words(text) for text in texts])
    # int8 embeddings are all that differs.
    np.testing.assert_allclose(actual, expected, atol=0.05)
    assert expected.std(axis=0).min() > 0.05


def test_training_learns_word_order():
    network, _ = _network(2)
    texts = ["you are good", "you are bad", "you are not good", "you are not bad"] * 64
    targets = np.zeros((len(texts), NUM_OUTPUTS), np.float32)
    targets[[i for i in range(len(texts)) if i % 4 in (1, 2)]] = 1
    examples = Examples(texts, targets, np.ones_like(targets))
    fit(
        network,
        Encoder(VOCABULARY),
        examples,
        Recipe(width=16, epochs=40, batch=64, learning_rate=1e-2),
    )
    encoder = Encoder(VOCABULARY)
    network.eval()
    encoded = [encoder.encode(text) for text in texts[:4]]
    random = np.random.default_rng(0)
    ((known, unknown, positions, chosen),) = encoder.batches(encoded, 4, random, train=False)
    toxic = np.asarray(network(known, unknown, positions))[np.argsort(chosen), 0] > 0
    assert toxic.tolist() == [False, True, True, False]


def test_the_same_seed_gives_the_same_weights():
    texts = ["you are good", "you are bad", "are you not unbelievably bad . "] * 24
    targets = np.random.default_rng(1).random((len(texts), NUM_OUTPUTS)).astype(np.float32)
    examples = Examples(texts, targets, np.ones_like(targets))
    trained = []
    for _ in range(2):
        network, _ = _network(3)
        fit(network, Encoder(VOCABULARY), examples, Recipe(width=16, epochs=2, batch=8))
        trained.append(jax.tree.leaves(nnx.state(network, nnx.Param)))
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pieces_spell_the_words_they_were_fitted_to():
    random = np.random.default_rng(5)
    words = [f"{a}{b}ing" for a in ("walk", "talk", "read") for b in ("", "s", "ly")]
    vectors = random.normal(size=(len(words), 8)).astype(np.float32)
    pieces = spelling(words, vectors, seed=0, steps=60)
    spelt = np.stack([pieces[bucket_numbers(word, NUM_BUCKETS)].mean(axis=0) for word in words])
    assert ((spelt - vectors) ** 2).mean() < 0.05
