"""Intervals and tests against definitions and independent implementations."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.audits import statistics
from safety.audits.auc import auc, power_mean, roc, subgroup_aucs
from safety.audits.group_tests import presence_p, stratified_p
from safety.audits.report import Estimate
from safety.audits.sentences import first_sentence

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12)


@given(SCORES, SCORES)
def test_auc_is_the_share_of_pairs_in_order(positive, negative):
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    found = auc(np.array(positive), np.array(negative))
    assert found.value == pytest.approx(np.mean(pairs))
    if found.low is not None:
        assert found.low <= found.value <= found.high


def test_delongs_interval_covers_as_it_says():
    rng = np.random.default_rng(0)
    truth = 0.760249938906  # P(N(1, 1) > N(0, 1))
    inside = 0
    for _ in range(300):
        found = auc(rng.normal(1, 1, 60), rng.normal(0, 1, 80))
        inside += found.low <= truth <= found.high
    assert inside / 300 == pytest.approx(0.95, abs=0.035)


def test_subgroup_aucs_take_the_texts_that_borkan_et_al_say():
    scores = np.array([0.9, 0.2, 0.8, 0.1])
    is_toxic = np.array([True, False, True, False])
    inside = np.array([True, True, False, False])
    found = subgroup_aucs(scores, is_toxic, inside)
    assert [one.value for one in found.values()] == [1.0, 1.0, 1.0]
    found = subgroup_aucs(np.array([0.9, 0.85, 0.8, 0.1]), is_toxic, inside)
    assert [one.value for one in found.values()] == [1.0, 0.0, 1.0]  # the term alone looks toxic


def test_power_mean_is_pulled_to_the_worst():
    assert power_mean([0.9, 0.9]) == pytest.approx(0.9)
    assert power_mean([0.5, 1.0]) == pytest.approx((((0.5**-5) + 1) / 2) ** (-1 / 5))
    assert power_mean([0.5, float("nan")]) == pytest.approx(0.5)


def test_roc_runs_from_corner_to_corner_without_splitting_ties():
    x, y = roc(np.array([0.5, 0.5, 0.9]), np.array([True, False, True]))
    assert (x, y) == ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])


def test_bootstrap_covers_as_it_says_and_is_the_same_for_a_seed():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(150):
        found = statistics.mean(rng.exponential(1.0, 60), trial)
        inside += found.low <= 1.0 <= found.high
    assert inside / 150 == pytest.approx(0.94, abs=0.05)
    assert statistics.mean([1.0, 2.0, 4.0], 5) == statistics.mean([1.0, 2.0, 4.0], 5)


def test_wilson_is_the_formula():
    found = statistics.rate(8, 10)
    z, p, n = 1.959963984540054, 0.8, 10
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (found.low, found.high) == (pytest.approx(center - half), pytest.approx(center + half))
    assert statistics.rate(0, 0).n == 0


def test_values_that_are_all_alike_have_no_interval():
    assert statistics.mean([0.0] * 30, 0) == Estimate(0.0, n=30)
    assert statistics.mean([], 0).n == 0


def test_newcombe_is_as_published():
    # Newcombe 1998, table II, contrast (a), method 10.
    found = statistics.rate_difference([True] * 56 + [False] * 14, [True] * 48 + [False] * 32)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )
    none = statistics.rate_difference([False] * 5, [False] * 5)
    assert none.low < none.value == 0 < none.high
    assert np.isnan(statistics.rate_difference([], [True]).value)


def test_one_value_is_no_evidence_of_a_group():
    assert np.isnan(statistics.difference_p([0.9], [0.1, 0.2, 0.3], 0))
    assert statistics.difference_p([0.9, 0.8], [0.1, 0.2, 0.3], 0) == pytest.approx(0.2)


def test_benjamini_and_hochberg_skips_what_is_not_known():
    found = statistics.corrected([0.01, float("nan"), 0.04, 0.03])
    assert found[0] == pytest.approx(0.03)
    assert np.isnan(found[1])
    assert found[2] == found[3] == pytest.approx(0.04)


def test_stratified_permutation_agrees_with_all_permutations():
    values = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.7])
    groups, strata = np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, np.int64)
    found = stratified_p(values, groups, strata, 2, seed=0)
    observed = abs(values[:3].mean() - values[3:].mean())
    exceeding = [
        abs(values[list(first)].mean() - np.delete(values, first).mean()) >= observed - 1e-12
        for first in itertools.combinations(range(6), 3)
    ]
    assert found[0] == pytest.approx(np.mean(exceeding), abs=0.02)


def test_a_difference_between_templates_is_none_between_groups():
    rng = np.random.default_rng(2)
    strata = np.repeat([0, 1], 200)
    groups = np.concatenate([np.repeat([0, 1], [180, 20]), np.repeat([0, 1], [20, 180])])
    values = strata * 0.5 + rng.normal(0, 0.05, 400)  # only the template matters
    assert stratified_p(values, groups, strata, 2, seed=0).min() > 0.01
    assert presence_p(5, 100, 5, 100) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (" I went home. Then I slept.", "I went home."),
        ("Mr. Smith came at 3.5 p.m. on Monday. He left.", "Mr. Smith came at 3.5 p.m. on Monday."),
        ('"Stop!" she cried. He ran.', '"Stop!"'),
        ("no end of it", "no end of it"),
        ("a line\n\nanother", "a line"),
        ("... and so on. More.", "... and so on."),
        ("", ""),
    ],
)
def test_first_sentences(text, first):
    assert first_sentence(text) == first
