"""The embedded network's kernels against its numpy form, and an installation without them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import kernels
from safety.kernels import library
from safety.scorers.embedded import EmbeddedScorer
from safety.scorers.embedded.forward import Network
from safety.scorers.embedded.layers import Layers, NumpyLayers, make_layers
from safety.scorers.embedded.weights import Block, Weights
from tests.required import require

WORDS = [f"w{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def _available() -> None:
    require(kernels.is_available(), f"no kernels: {kernels.status().reason}")


@contextmanager
def level(name: str) -> Iterator[None]:
    """Kernels of a level, or `off`."""
    before = os.environ.get(library.ISA_VARIABLE)
    os.environ[library.ISA_VARIABLE] = name
    library.status.cache_clear()
    try:
        yield
    finally:
        del os.environ[library.ISA_VARIABLE]
        if before is not None:
            os.environ[library.ISA_VARIABLE] = before
        library.status.cache_clear()


def random_weights(seed: int, width: int, hidden: int, dilations: list[int]) -> Weights:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    return Weights(
        vocabulary={word: number for number, word in enumerate(WORDS[:20])},
        words=random.integers(-127, 128, (20, 12)).astype(np.int8),
        word_scales=np.full(20, 0.02, np.float32),
        pieces=random.integers(-127, 128, (64, 12)).astype(np.int8),
        piece_scales=np.full(64, 0.02, np.float32),
        projection=normal(12, width),
        projection_bias=normal(width),
        blocks=tuple(
            Block(kernel=normal(3 * width, width), bias=normal(width), dilation=dilation)
            for dilation in dilations
        ),
        attention=normal(width),
        hidden=normal(2 * width, hidden),
        hidden_bias=normal(hidden),
        output=normal(hidden, 6),
        output_bias=normal(6),
        calibration=np.stack([np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)], 1).astype(np.float32),
        version="test",
    )


@given(
    seed=st.integers(0, 1000),
    width=st.sampled_from([1, 16, 32, 40, 96]),
    hidden=st.sampled_from([1, 24, 64]),
    dilations=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=12),
)
def test_every_level_computes_what_numpy_does(seed, width, hidden, dilations, lengths):
    weights = random_weights(seed, width, hidden, dilations)
    random = np.random.default_rng(seed)
    texts = [random.choice(WORDS, length).tolist() for length in lengths]
    with level("off"):
        expected = Network(weights).logits(texts)
    for name in library.ISAS:
        with level(name):
            network = Network(weights)
            together = network.logits(texts)
            alone = np.concatenate([network.logits([text]) for text in texts])
        np.testing.assert_allclose(together, expected, rtol=1e-4, atol=2e-5)
        np.testing.assert_array_equal(together, alone)


def test_shipped_weights_give_the_same_probabilities():
    texts = ["", "you are an idiot", "what a lovely day. " * 90, "zxqv \u4f60\u597d", "a", "!"]
    with level("off"):
        expected = EmbeddedScorer().score(texts)
    for name in library.ISAS:
        with level(name):
            np.testing.assert_allclose(EmbeddedScorer().score(texts), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["off", *library.ISAS])
def test_words_are_forgotten_when_there_are_too_many(name):
    weights = random_weights(0, 32, 32, [1, 2])
    with level(name):
        forgetful, other = Network(weights, max_cached_words=3), Network(weights)
        for words in (WORDS[:3], WORDS[3:9], WORDS[:9], WORDS[30:]):
            np.testing.assert_array_equal(forgetful.logits([words]), other.logits([words]))


def test_numbers_start_again_after_clearing():
    weights = random_weights(0, 32, 32, [1])
    vectors = np.abs(np.random.default_rng(0).normal(size=(1500, 32))).astype(np.float32)
    every: list[Layers] = [NumpyLayers(weights), make_layers(weights)]
    for layers in every:
        for _ in range(2):
            assert [layers.learn(vector) for vector in vectors] == list(range(1500))
            layers.clear()


def test_the_environment_lowers_the_level_or_turns_them_off():
    with level("portable"):
        assert kernels.status() == kernels.KernelStatus("portable", None)
    with level("off"):
        assert kernels.status() == kernels.KernelStatus(None, "TALIPOT_KERNELS=off")
        assert isinstance(make_layers(random_weights(0, 32, 32, [1])), NumpyLayers)
    with level("fastest"), pytest.raises(ValueError, match="TALIPOT_KERNELS=fastest is none of"):
        kernels.status()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty folder in which the library is looked for."""
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)
    caches = (library.status, library.library)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def test_without_a_library_it_is_said_once_what_to_do(elsewhere, caplog):
    for _ in range(2):
        reason = kernels.status().reason
        assert reason is not None
        assert reason.startswith("they were not built: install a C++17 compiler")
    assert caplog.text.count("the embedded scorer is slow, without its kernels") == 1
    assert EmbeddedScorer().score(["you are an idiot"])[0, 0] > 0.5


def test_a_library_of_other_sources_is_not_used(elsewhere):
    built = next(Path(kernels.__file__).parent.glob("_native*"))
    (elsewhere / built.name).symlink_to(built)
    (elsewhere / "src").mkdir()
    (elsewhere / "src" / "new.cpp").write_text("int newer;")
    assert "built from other sources: install Talipot again" in str(kernels.status().reason)


def test_a_file_that_is_no_library_is_reported(elsewhere):
    built = next(Path(kernels.__file__).parent.glob("_native*"))
    (elsewhere / built.name).write_bytes(b"no library")
    assert built.name in str(kernels.status().reason)
