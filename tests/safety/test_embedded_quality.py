"""What the shipped weights must reach on sets, or parts of sets, that they were not trained on."""

from pathlib import Path

import numpy as np
import pytest

from safety.scorers.embedded import EmbeddedScorer
from safety.scorers.embedded.training.evaluate import (
    auc,
    on_cat,
    on_edos,
    on_identity_templates,
    on_own_templates,
    on_tweets,
    reliability,
)
from tests.shared_data import shared_file


@pytest.fixture(scope="module")
def scorer() -> EmbeddedScorer:
    return EmbeddedScorer()


@pytest.fixture(scope="module")
def data() -> Path:
    return shared_file("data")


def test_comments_of_the_held_out_half_of_cat(scorer: EmbeddedScorer, data: Path):
    figures = on_cat(scorer, data)
    assert figures["cat gn, crowd"] >= 0.90
    assert figures["cat, Perspective"] >= 0.95


def test_scores_of_that_half_mean_what_perspectives_mean(scorer: EmbeddedScorer, data: Path):
    bins = reliability(scorer, data)
    number = sum(part.number for part in bins)
    error = sum(part.number * abs(part.score - part.perspective) for part in bins) / number
    assert error <= 0.02


def test_posts_of_other_places(scorer: EmbeddedScorer, data: Path):
    assert on_tweets(scorer, data)["tweets, toxicity"] >= 0.95
    assert on_edos(scorer, data)["edos, identity attack"] >= 0.73


def test_names_of_groups_are_not_toxic(scorer: EmbeddedScorer, data: Path):
    figures = on_identity_templates(scorer, data)
    assert figures["templates, AUC"] >= 0.97
    assert figures["templates, worst term's FPR - overall"] <= 0.05


def test_hostile_and_kind_sentences_of_held_out_templates_and_groups(scorer: EmbeddedScorer):
    assert on_own_templates(scorer)["own templates, identity attack"] >= 0.85


HOSTILE = [
    "They breed like rabbits, these immigrants, and live on our money",
    "Jews secretly run the banks",
    "The disabled should have been drowned at birth",
    "Muslims are a threat to our way of life",
    "We ought to ship every one of those foreigners back where they crawled from",
]
KIND = [
    "Immigrants often start small businesses",
    "The Jewish museum opens at nine",
    "Disabled athletes won six medals",
    "My Muslim neighbours brought us food",
    "Foreigners who study here often stay",
]


def test_an_identity_attack_needs_no_swear_word(scorer: EmbeddedScorer):
    column = scorer.labels.index("identity_attack")
    scores = scorer.score([*HOSTILE, *KIND])[:, column]
    assert auc([True] * len(HOSTILE) + [False] * len(KIND), scores) >= 0.95
    assert np.median(scores[: len(HOSTILE)]) > 0.5
    assert np.median(scores[len(HOSTILE) :]) < 0.1


def test_auc_counts_ties_half():
    assert auc([True, False, True, False], [0.9, 0.1, 0.5, 0.5]) == pytest.approx(0.875)
    with pytest.raises(ValueError, match="0 positives"):
        auc([False], [0.1])
