"""The memorization guard and search through the doors."""

import httpx
import pytest

from api.grpc.talipot.v1 import generation_pb2 as pb
from tests.e2e.grpc_client import failure_of, stub_for
from tests.e2e.grpc_client import request as grpc_request
from tests.e2e.indexed import answer
from tests.e2e.test_safety import BODY, ask, stream
from tests.memorization.exact_index import ExactIndex


@pytest.fixture(scope="module")
def index():
    return ExactIndex()


@pytest.fixture
def tokens(indexed, index):
    """The model's own answer, of which the middle is made training data."""
    found, _ = answer(indexed.grpc_target)
    index.documents = [found[20:50]]
    yield found
    index.documents = []
    index.is_away = False


def test_annotate_names_what_was_recited(indexed_http, tokens):
    plain = ask(indexed_http)["text"]
    options = {"action": "annotate", "min_tokens": 16}
    choice = ask(indexed_http, memorization=options)
    assert choice["text"] == plain
    report = choice["memorization"]
    assert (report["verdict"], report["recited_tokens"], report["tokens"]) == ("flagged", 30, 60)
    (span,) = report["spans"]
    assert 0 < span["start"] < span["end"] < len(plain)
    assert span["documents"][0]["title"] == "Book 0"
    assert stream(indexed_http, memorization=options) == choice


def test_block_never_lets_a_run_leave_at_any_door(indexed_http, indexed, index, tokens):
    options = {"action": "block", "min_tokens": 16}
    choice = stream(indexed_http, memorization=options)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("content_filter", "memorization")
    assert choice["memorization"]["verdict"] == "blocked"
    assert "Book 0" in choice["memorization"]["reasons"][0]
    assert ask(indexed_http, memorization=options) == choice
    sent, deltas = answer(indexed.grpc_target, **options)
    assert sent == tokens[: len(sent)]
    assert not index.longest_matches(sent, min_tokens=16)
    assert deltas[-1].memorization.spans[0].documents[0].title == "Book 0"
    assert "".join(delta.text for delta in deltas) == choice["text"]


def test_an_index_that_is_away_blocks_and_leaves_annotations_untraced(indexed_http, index, tokens):
    index.is_away = True
    blocked = ask(indexed_http, memorization={"action": "block", "min_tokens": 16})
    assert (blocked["text"], blocked["finish_reason"]) == ("", "content_filter")
    annotated = ask(indexed_http, memorization={"action": "annotate", "min_tokens": 16})
    assert annotated["memorization"]["verdict"] == "untraced"
    assert annotated["memorization"]["recited_tokens"] is None
    assert annotated["finish_reason"] == "length"
    response = indexed_http.post("/v1/memorization/search", json={"text": "x"})
    assert response.status_code == 503


def test_any_text_can_be_looked_up(indexed_http, index):
    text = "It was the best of times, it was the worst of times"
    tokens = indexed_http.post(
        "/tokenize", json={"prompt": text, "add_special_tokens": False}
    ).json()
    index.documents = [tokens["tokens"]]
    query = "Then he said. " + text
    response = indexed_http.post("/v1/memorization/search", json={"text": query, "min_tokens": 8})
    assert response.status_code == 200, response.text
    found = response.json()
    (span,) = found["spans"]
    assert query[span["start"] : span["end"]].strip() in text
    assert span["end"] == len(query)
    assert found["recited_tokens"] == span["tokens"] > 8
    index.documents = []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["memorization", "action", "required"]),
        ({"action": "erase"}, ["memorization.action='erase'", "annotate"]),
        ({"action": "block", "min_tokens": 7}, ["memorization.min_tokens=7", "8"]),
        ({"action": "block", "min_tokens": 2000}, ["memorization.min_tokens=2000", "1024"]),
    ],
)
def test_bad_options_are_named_at_both_doors(indexed_http, indexed, options, words):
    error = indexed_http.post("/v1/completions", json={**BODY, "memorization": options}).json()[
        "error"
    ]
    assert error["param"] == "memorization"
    assert all(word in error["message"] for word in words), error
    with stub_for(indexed.grpc_target) as stub:
        request = grpc_request(memorization=pb.MemorizationOptions(**options))
        failure = failure_of(lambda: list(stub.Generate(request)))
    assert failure.field == "memorization"
    assert all(word in failure.message for word in words), failure


def test_without_an_index_the_option_is_named(server):
    body = {**BODY, "memorization": {"action": "annotate"}}
    for path, asked in (("completions", body), ("memorization/search", {"text": "x"})):
        response = httpx.post(f"{server.url}/v1/{path}", json=asked)
        assert response.status_code == 400
        assert "--memorization-index" in response.json()["error"]["message"]
