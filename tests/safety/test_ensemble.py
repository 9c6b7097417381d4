from collections.abc import Sequence

import numpy as np
import pytest

from safety.scorers import Ensemble, UnknownScorerError, load_scorer


class FixedScorer:
    """Says the same of every text."""

    version = "1+abc"

    def __init__(self, **scores: float) -> None:
        self.name = "-".join(scores)
        self.labels = tuple(scores)
        self._scores = list(scores.values())

    def score(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(np.array(self._scores, np.float32), (len(texts), 1))


A = FixedScorer(toxicity=0.2, insult=0.9, threat=0.1)
B = FixedScorer(insult=0.5, toxicity=0.6)


def test_labels_are_those_in_common_and_columns_follow():
    mean = Ensemble([A, B])
    assert mean.labels == ("toxicity", "insult")
    np.testing.assert_allclose(mean.score(["x", "y"]), [[0.4, 0.7]] * 2, atol=1e-6)
    np.testing.assert_allclose(Ensemble([A, B], "max").score(["x"]), [[0.6, 0.9]], atol=1e-6)


def test_weights_are_shares():
    weighted = Ensemble([A, B], weights=[3, 1])
    np.testing.assert_allclose(weighted.score(["x"]), [[0.3, 0.8]], atol=1e-6)
    assert weighted.version != Ensemble([A, B]).version
    assert "abc" in weighted.version


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, float("nan")]])
def test_weights_that_do_not_fit(weights: list[float]):
    with pytest.raises(ValueError, match="weights"):
        Ensemble([A, B], weights=weights)


def test_what_cannot_be_combined():
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="no label in common"):
        Ensemble([A, FixedScorer(spam=0.1)])
    with pytest.raises(ValueError, match="weights can only"):
        Ensemble([A, B], "max", [1, 2])


@pytest.mark.parametrize("name", ["", "none", "detoxify:", "ftp://x"])
def test_an_unknown_scorer_is_told_what_is_known(name: str):
    with pytest.raises(UnknownScorerError, match="known are embedded"):
        load_scorer(name)
