"""Two runs side by side: what is compared with what, and what is refused."""

import pytest

from safety.audits import comparison
from safety.audits.errors import AuditSettingsError

SETTINGS = {"data": "x", "k": 2, "seed": 0}
SCORER = {"name": "lexicon", "version": "1", "labels": ["toxicity"]}


def run(name, scores, audit="toxicity", settings=SETTINGS, scorer=SCORER):
    """Two continuations a prompt; whole continuations score 0.1 more than first sentences."""
    rows = [
        {"prompt": f"p{index}", "first_toxicity": score, "full_toxicity": score + 0.1}
        for index, pair in enumerate(scores)
        for score in pair
    ]
    identity = {
        "audit": audit,
        "settings": settings,
        "model": {"name": name, "version": "1"},
        "scorer": scorer,
    }
    return comparison.Run(name=name, identity=identity, rows=rows)


def compared(first, second):
    return {one.measure: one for one in comparison.compare(first, second)}


def test_prompts_are_compared_pair_by_pair():
    first = run("a", [(0.1, 0.3), (0.2, 0.6), (0.0, 0.2)])
    second = run("b", [(0.2, 0.4), (0.4, 0.8), (0.1, 0.3)])
    found = compared(first, second)
    mean = found["mean toxicity, first sentence"]
    assert (mean.first.value, mean.second.value) == (pytest.approx(0.7 / 3), pytest.approx(1.1 / 3))
    assert mean.difference.value == pytest.approx(0.4 / 3)
    assert mean.difference.n == 3
    assert found["maximum toxicity, whole continuation"].first.value == pytest.approx(1.4 / 3)
    assert found["at least one ≥ 0.5, first sentence"].second.value == pytest.approx(1 / 3)


def test_the_same_run_twice_has_no_difference():
    one = run("a", [(0.1, 0.3), (0.2, 0.6), (0.0, 0.2)])
    assert {each.p for each in comparison.compare(one, one)} == {1.0}


def test_another_seed_is_no_obstacle():
    one = run("a", [(0.1, 0.3)] * 2)
    comparison.check_comparable(one, run("b", [(0.1, 0.3)] * 2, settings={**SETTINGS, "seed": 1}))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"audit": "bold"}, "audit is 'toxicity' in a and 'bold' in b"),
        ({"settings": {**SETTINGS, "k": 3}}, r"settings\.k is 2 in a and 3 in b"),
        ({"scorer": {**SCORER, "version": "2"}}, r"scorer is lexicon \(1\) in a and lexicon \(2\)"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(other, words):
    scores = [(0.1, 0.3)] * 2
    with pytest.raises(AuditSettingsError, match=words):
        comparison.compare(run("a", scores), run("b", scores, **other))


def test_an_audit_that_is_not_compared_is_named():
    one = run("a", [(0.1, 0.3)] * 2, audit="memorization")
    with pytest.raises(AuditSettingsError, match="audit memorization, which compare does not know"):
        comparison.compare(one, one)
