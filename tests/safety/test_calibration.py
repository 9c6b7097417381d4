"""Platt scaling, and the parts that the labelled sets fall into."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.scorers.embedded.training.calibration import logits_of, platt
from safety.scorers.embedded.training.sources import labelled_texts, split_of
from tests.shared_data import shared_file


@given(st.floats(0.3, 3.0), st.floats(-2.0, 2.0))
def test_the_line_that_made_the_targets_is_found(slope, offset):
    logits = np.linspace(-4, 4, 41)
    targets = 1 / (1 + np.exp(-(slope * logits + offset)))
    np.testing.assert_allclose(platt(logits, targets), (slope, offset), atol=1e-5)


def test_weights_count_as_repetitions_do():
    random = np.random.default_rng(3)
    logits = random.normal(size=60)
    targets = (random.random(60) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    times = random.integers(0, 4, size=60)
    repeated = platt(np.repeat(logits, times), np.repeat(targets, times))
    np.testing.assert_allclose(platt(logits, targets, times.astype(float)), repeated, atol=1e-6)


def test_what_has_no_line_is_refused():
    with pytest.raises(ValueError, match="two different logits"):
        platt(np.ones(5), np.array([0.0, 1, 0, 1, 0]))
    with pytest.raises(ValueError, match="found no line after 50 steps"):
        platt(np.array([-2.0, -1, 1, 2]), np.array([0.0, 0, 1, 1]))


def test_log_odds_are_finite():
    np.testing.assert_allclose(logits_of(np.array([0.5, 0.75])), [0, np.log(3)])
    assert np.isfinite(logits_of(np.array([0.0, 1.0]))).all()


def test_shares_of_a_split():
    parts = collections.Counter(split_of(f"text {index}", test=0.5) for index in range(8000))
    assert parts["test"] / 8000 == pytest.approx(0.5, abs=0.03)
    assert parts["validation"] / 8000 == pytest.approx(0.075, abs=0.02)


def test_no_text_is_in_two_parts():
    data = shared_file("data")
    parts = [
        {(text.source[:3], text.text) for text in labelled_texts(data, split)}
        for split in ("train", "validation", "test")
    ]
    # EDOS brings its own split.
    train, validation, test = ({text for source, text in part if source != "edo"} for part in parts)
    assert not train & test
    assert not train & validation
    assert not validation & test
    assert min(len(part) for part in (train, validation, test)) > 1000
