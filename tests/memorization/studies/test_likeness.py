"""Exact and approximate likeness, against independent implementations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.metrics.distance import edit_distance as nltk_edit_distance
from nltk.translate.bleu_score import sentence_bleu

from memorization.studies.likeness import bleu, compare_tokens, edit_distance

TOKENS = st.lists(st.integers(0, 5), max_size=24)


@given(TOKENS, TOKENS)
def test_edit_distance_is_nltks(one, other):
    assert edit_distance(one, other) == nltk_edit_distance(one, other)


@given(st.lists(st.integers(0, 2), min_size=4, max_size=40), st.data())
def test_bleu_is_nltks_where_every_order_matches(reference, data):
    place = data.draw(st.integers(0, len(reference)))
    candidate = [*reference[:place], 7, *reference[place:]]
    found = bleu(candidate, reference)
    if found:
        assert math.isclose(found, sentence_bleu([reference], candidate), rel_tol=1e-12)
    else:
        with pytest.warns(UserWarning, match="0 counts"):
            assert sentence_bleu([reference], candidate) < 1e-50


def test_thresholds_are_the_papers():
    truth = list(range(50))
    same = compare_tokens(truth, truth)
    assert (same.is_exact, same.edits, same.bleu) == (True, 0.0, 1.0)
    five = compare_tokens([*truth[:45], *[99] * 5], truth)
    assert (five.is_exact, five.edits, five.is_near_by_edits) == (False, 0.1, True)
    six = compare_tokens([*truth[:44], *[99] * 6], truth)
    assert not six.is_near_by_edits
    assert six.is_near_by_bleu
    assert not compare_tokens([], truth).is_near_by_bleu
