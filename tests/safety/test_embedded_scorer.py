from pathlib import Path

import numpy as np
import pytest

from safety.scorers import TOXICITY_LABELS, CheckpointError, load_scorer
from safety.scorers.embedded import EmbeddedScorer
from safety.scorers.embedded.weights import SHIPPED

# One greeting each from 52 languages.
GREETINGS = [
    "مرحبا",
    "नमस्ते",
    "你好",
    "こんにちは",
    "안녕하세요",
    "สวัสดี",
    "Привет",
    "Γειά",
    "שלום",
    "Xin chào",
    "გამარჯობა",
    "Բարեւ",
    "ሰላም",
    "হ্যালো",
    "ਸਤ ਸ੍ਰੀ ਅਕਾਲ",
    "નમસ્તે",
    "வணக்கம்",
    "నమస్కారం",
    "ನಮಸ್ಕಾರ",
    "നമസ്കാരം",
    "ආයුබෝවන්",
    "မင်္ဂလာပါ",
    "សួស្តី",
    "ສະບາຍດີ",
    "བཀྲ་ཤིས",
    "Здраво",
    "Merhaba",
    "Szia",
    "Ahoj",
    "Cześć",
    "Hei",
    "Hej",
    "Halló",
    "Dia dhuit",
    "Helo",
    "Kaixo",
    "Hola",
    "Olá",
    "Ciao",
    "Salut",
    "Bună",
    "Sveiki",
    "Labas",
    "Tere",
    "Përshëndetje",
    "Hujambo",
    "Sawubona",
    "Sannu",
    "سلام",
    "ہیلو",
    "Kamusta",
    "Bonjour",
]


@pytest.fixture(scope="module")
def scorer() -> EmbeddedScorer:
    return EmbeddedScorer()


def test_scores_are_probabilities_of_detoxifys_labels(scorer: EmbeddedScorer):
    scores = scorer.score(["you are a stupid idiot", "have a lovely day"])
    assert scorer.labels == TOXICITY_LABELS
    assert scores.shape == (2, 6)
    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    assert scores[0, 0] > 0.5 > scores[1, 0]


def test_a_text_scores_the_same_alone_and_in_company(scorer: EmbeddedScorer):
    texts = ["you idiot", "", "a very long text " * 90, "hello", "I will kill you!"]
    together = scorer.score(texts)
    alone = np.concatenate([scorer.score([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u200b"])
def test_nothing_to_read_scores_nothing(scorer: EmbeddedScorer, text: str):
    assert not scorer.score([text]).any()


def test_no_texts_no_scores(scorer: EmbeddedScorer):
    assert scorer.score([]).shape == (0, 6)


def test_a_megabyte_scores_as_its_worst_window(scorer: EmbeddedScorer):
    filler = "the river runs past the old mill and the fields beyond it. "
    text = filler * 9000 + "You are a fucking idiot and I hate you. " + filler * 9000
    assert len(text) > 1_000_000
    assert scorer.score([text])[0, 0] > 0.5


def test_many_scripts_and_broken_text(scorer: EmbeddedScorer):
    scores = scorer.score([*GREETINGS, "\ud800\udfff", "\x00", "\U0001f469\u200d\U0001f680" * 50])
    assert len(GREETINGS) >= 50
    assert np.isfinite(scores).all()


def test_disguise_does_not_help(scorer: EmbeddedScorer):
    plain, *hidden = scorer.score(
        [
            "you fucking idiot",
            "you f\u200bucking 1d10t".replace("1d10t", "id\u200biot"),
            "you f\u03c5cking idi\u043et",
        ]
    )[:, 0]
    assert all(score > plain - 0.02 for score in hidden)


def test_version_names_the_weights(scorer: EmbeddedScorer):
    version, _, digest = scorer.version.partition("+")
    assert version
    assert len(digest) == 12
    assert load_scorer("embedded").version == scorer.version


def test_damaged_and_missing_weights_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"missing\.safetensors"):
        EmbeddedScorer(tmp_path / "missing.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(SHIPPED.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
        EmbeddedScorer(damaged)


def test_weights_stay_small():
    assert SHIPPED.stat().st_size <= 10_000_000
