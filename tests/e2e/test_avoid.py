"""`memorization.action="avoid"` through the doors: what was training data is never said again."""

import pytest

from api.grpc.talipot.v1 import generation_pb2 as pb
from tests.e2e.grpc_client import failure_of, stub_for
from tests.e2e.grpc_client import request as grpc_request
from tests.e2e.indexed import answer
from tests.e2e.test_safety import BODY, ask, stream
from tests.memorization.exact_index import ExactIndex
from tests.serving.forbidding import ended, ngrams_of

NGRAM = 10
AVOID = {"action": "avoid"}


@pytest.fixture(scope="module")
def index(server):
    """The model's own answer is training data."""
    return ExactIndex([answer(server.grpc_target)[0]], NGRAM)


def test_no_training_ngram_is_said_at_any_door(indexed_http, indexed, index):
    plain = ask(indexed_http)
    choice = ask(indexed_http, memorization=AVOID)
    assert choice["text"] != plain["text"]
    assert choice["finish_reason"] == "length"
    report = choice["memorization"]
    assert (report["action"], report["verdict"]) == ("avoid", "passed")
    assert (report["spans"], report["recited_tokens"]) == ([], 0)
    assert stream(indexed_http, memorization=AVOID) == choice
    tokens, deltas = answer(indexed.grpc_target, **AVOID)
    assert "".join(delta.text for delta in deltas) == choice["text"]
    assert deltas[-1].memorization.verdict == "passed"
    prompt = indexed_http.post("/tokenize", json={"prompt": BODY["prompt"]}).json()["tokens"]
    assert not ended(prompt, tokens, NGRAM) & ngrams_of(index.documents, NGRAM)
    # As far as it may, the text is the same.
    assert tokens[: NGRAM - 1] == index.documents[0][: NGRAM - 1]


def test_requests_beside_it_are_not_touched(indexed_http, indexed, index):
    assert answer(indexed.grpc_target)[0] == index.documents[0]
    blocked = ask(indexed_http, memorization={"action": "block", "min_tokens": 16})
    assert blocked["finish_reason"] == "content_filter"


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_length_that_the_filter_does_not_keep_is_named(indexed_http, indexed, door):
    options = {"action": "avoid", "min_tokens": NGRAM - 1}
    if door == "http":
        body = {**BODY, "memorization": options}
        error = indexed_http.post("/v1/completions", json=body).json()["error"]
        field, message = error["param"], error["message"]
    else:
        asked = grpc_request(memorization=pb.MemorizationOptions(**options))
        with stub_for(indexed.grpc_target) as stub:
            failure = failure_of(lambda: list(stub.Generate(asked)))
        field, message = failure.field, failure.message
    assert field == "memorization"
    assert f"min_tokens={NGRAM - 1} must be at least {NGRAM}" in message
