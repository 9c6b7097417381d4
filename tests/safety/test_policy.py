import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.policy import SAFETY_ACTIONS, SafetyPolicy

POLICIES = st.builds(
    SafetyPolicy,
    action=st.sampled_from(SAFETY_ACTIONS),
    threshold=st.floats(0, 1),
    labels=st.none() | st.frozensets(st.sampled_from("abc"), min_size=1),
    window_tokens=st.integers(1, 256),
    prompt=st.booleans(),
)


@given(POLICIES, POLICIES)
def test_a_tightened_policy_is_at_least_as_strict_as_both(first, second):
    found = first.tightened_by(second)
    if "off" not in (first.action, second.action):
        assert found == second.tightened_by(first)
    for policy in (first, second):
        if policy.action == "off":
            continue
        assert SAFETY_ACTIONS.index(found.action) >= SAFETY_ACTIONS.index(policy.action)
        assert found.threshold <= policy.threshold
        assert found.window_tokens >= policy.window_tokens
        assert found.prompt or not policy.prompt
        if policy.labels is None:
            assert found.labels is None
        elif found.labels is not None:
            assert found.labels >= policy.labels


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"action": "warn"}, ["action='warn'", "annotate"]),
        ({"threshold": 1.5}, ["threshold=1.5", "1"]),
        ({"threshold": float("nan")}, ["threshold=nan", "1"]),
        ({"window_tokens": 0}, ["window_tokens=0", "256"]),
        ({"labels": frozenset()}, ["labels", "at least 1"]),
    ],
)
def test_errors_name_field_value_and_limit(fields, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        SafetyPolicy(**fields)
    assert all(word in str(caught.value) for word in words)
