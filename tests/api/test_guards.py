"""Which policies a server can keep, and what a request may change of them."""

import pytest

from api.guard_config import GuardConfig
from api.guard_fields import GuardFields, checked_memorization
from api.guards import Guards
from memorization.tracing import Tracer
from model.errors import ConfigError
from serving.errors import RequestError
from serving.request import SamplingParams
from tests.memorization.exact_index import ExactIndex


def loaded(index: ExactIndex, **config: object) -> Guards:
    guards = Guards(
        GuardConfig(scorer="none", **config),  # type: ignore[arg-type]
        tracer=Tracer(index, timeout_s=5),
    )
    guards.load_index("tiny", None)  # type: ignore[arg-type]  # the index is given
    return guards


def near_only() -> ExactIndex:
    index = ExactIndex()
    index.sure_tokens = None
    return index


def test_the_policy_to_avoid_holds_for_requests_that_ask_for_less():
    guards = loaded(ExactIndex([], 10), memorization_action="avoid")
    for fields in (None, {"action": "off"}, {"action": "annotate"}, {"action": "block"}):
        assert guards.avoids(GuardFields(memorization=fields))
    assert not guards.avoids(GuardFields(memorization={"action": "off"}, may_loosen=True))


def test_a_request_may_avoid_where_the_policy_blocks():
    guards = loaded(ExactIndex([], 10), memorization_action="block", memorization_min_tokens=16)
    fields = GuardFields(memorization=checked_memorization({"action": "avoid"}))
    guards.check(fields, SamplingParams())
    assert guards.avoids(fields)
    assert not guards.avoids(GuardFields())


@pytest.mark.parametrize(
    ("index", "policy", "words"),
    [
        (ExactIndex(), {}, ["memorization.action='avoid'", "talipot index build --ngram"]),
        (ExactIndex([], 20), {"min_tokens": 19}, ["min_tokens=19", "at least 20"]),
        (near_only(), {}, ["memorization.action='avoid'", "near duplicates alone"]),
    ],
)
def test_what_cannot_be_avoided_is_named(index, policy, words):
    guards = loaded(index)
    fields = checked_memorization({"action": "avoid", **policy})
    with pytest.raises(RequestError) as caught:
        guards.check(GuardFields(memorization=fields), SamplingParams())
    assert caught.value.param == "memorization"
    assert all(word in str(caught.value) for word in words), caught.value
    with pytest.raises(ConfigError) as at_start:
        loaded(index, **{f"memorization_{name}": value for name, value in fields.items()})
    assert all(word in str(at_start.value) for word in words), at_start.value


def test_an_index_of_near_duplicates_annotates_and_does_not_block():
    guards = loaded(near_only())
    guards.check(GuardFields(memorization={"action": "annotate"}), SamplingParams())
    with pytest.raises(RequestError, match="action='block' needs an index that finds verbatim"):
        guards.check(GuardFields(memorization={"action": "block"}), SamplingParams())
