"""Servers whose index is in Redis: what they tell, stop and avoid, and what if Redis is gone."""

import httpx
import pytest
import redis

from api.guard_config import GuardConfig
from api.guards import Guards
from memorization.layout import IndexParameters
from memorization.redis_build import build_redis_index
from memorization.redis_index import RedisIndex
from memorization.redis_store import connect
from memorization.tracing import Tracer
from memorization.winnowing import Winnowing
from tests.e2e.test_avoid import answer
from tests.e2e.test_safety import BODY, ask, stream
from tests.e2e.tiny import load_tiny_engine, serving, wait_ready
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, prose
from tests.redis_server import RedisServer
from tests.serving.forbidding import ended, ngrams_of

ANNOTATE = {"action": "annotate"}
SURE = 16  # tokens of the shortest run that is sure to be found
WINNOWING = Winnowing(k=9, window=8)


class IdTokenizer:
    """Reads texts that are token ids in decimal: an index of what a model said, not of its text."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split() if word.isdigit()]

    def token_bytes(self, token_id: int) -> bytes:
        return b"%d " % token_id


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def http(store, tiny_model, tmp_path_factory):
    engine = load_tiny_engine(tiny_model)
    source = write_jsonl(tmp_path_factory.mktemp("corpus") / "c.jsonl", corpus(3))
    with redis.Redis.from_url(store.url) as client:
        build_redis_index(
            [source],
            client,
            "books",
            IndexParameters(exact=False),
            tokenizer=engine.tokenizer,
        )
    config = GuardConfig(scorer="none", memorization_index=f"{store.url}?name=books")
    with serving(engine, Guards(config)) as running:
        wait_ready(running.url)
        with httpx.Client(base_url=running.url, timeout=30) as client:
            yield client


@pytest.fixture(scope="module")
def said(server):
    """The tokens of the model's own answer."""
    return answer(server.grpc_target)[0]


@pytest.fixture(scope="module")
def tracing(store, said, tiny_model, tmp_path_factory):
    """A server for which the middle of the model's own answer is training data."""
    engine = load_tiny_engine(tiny_model)
    record = {"id": "said", "title": "What it says", "text": " ".join(map(str, said[10:50]))}
    source = write_jsonl(tmp_path_factory.mktemp("said") / "c.jsonl", [record])
    client, name = connect(f"{store.url}?name=said")
    build_redis_index(
        [source],
        client,
        name,
        IndexParameters(near=False),
        tokenizer=IdTokenizer(engine.tokenizer.vocab_size),
        winnowing=WINNOWING,
    )
    tracer = Tracer(RedisIndex.open(client, name), timeout_s=5)
    with serving(engine, Guards(GuardConfig(scorer="none"), tracer=tracer)) as running:
        wait_ready(running.url)
        yield running
    client.close()


@pytest.fixture
def runs(tracing):
    with httpx.Client(base_url=tracing.url, timeout=30) as client:
        yield client


def search(http: httpx.Client, text: str) -> httpx.Response:
    return http.post("/v1/memorization/search", json={"text": text})


def test_near_duplicates_are_found_and_runs_are_said_to_be_unknown(http):
    found = search(http, prose(200, 1)).json()
    assert (found["spans"], found["recited_tokens"]) == (None, None)
    assert (found["near_duplicates"][0]["title"], found["near_duplicates"][0]["similarity"]) == (
        "Title 1",
        1.0,
    )
    report = ask(http, memorization=ANNOTATE)["memorization"]
    assert (report["verdict"], report["recited_tokens"]) == ("passed", None)
    assert report["near_duplicates"] == []


@pytest.mark.parametrize("action", ["block", "avoid"])
def test_what_needs_verbatim_runs_is_refused(http, action):
    body = {**BODY, "memorization": {"action": action}}
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert f"memorization.action={action!r} needs an index that finds verbatim runs" in message


def test_runs_are_told_stopped_and_avoided(tracing, runs, said):
    report = ask(runs, memorization={"action": "annotate", "min_tokens": SURE})["memorization"]
    (span,) = report["spans"]
    assert (report["verdict"], span["documents"][0]["title"]) == ("flagged", "What it says")
    assert SURE < span["tokens"] <= 40 == span["max_tokens"]
    blocked = {"action": "block", "min_tokens": SURE}
    choice = stream(runs, memorization=blocked)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("content_filter", "memorization")
    assert ask(runs, memorization=blocked) == choice
    sent = answer(tracing.grpc_target, **blocked)[0]
    assert sent == said[: len(sent)]
    assert len(sent) < 10 + SURE
    avoiding = answer(tracing.grpc_target, action="avoid", min_tokens=SURE)[0]
    assert len(avoiding) == len(said)
    assert avoiding[: 10 + WINNOWING.k - 1] == said[: 10 + WINNOWING.k - 1]
    assert not ended((), avoiding, SURE) & ngrams_of([said[10:50]], SURE)


# Last: the store does not come back.
def test_redis_gone_in_mid_answer_lets_nothing_leave_under_block(store, runs):
    store.kill()
    blocked = ask(runs, memorization={"action": "block", "min_tokens": 32})
    assert (blocked["text"], blocked["finish_reason"]) == ("", "content_filter")
    assert blocked["memorization"]["verdict"] == "blocked"
    assert "does not answer" in blocked["memorization"]["reasons"][0]
    # What may not be said is known to the engine since its start.
    assert ask(runs, memorization={"action": "avoid"})["memorization"]["verdict"] == "untraced"


def test_redis_gone_is_said_and_nothing_is_passed_in_silence(http, store):
    store.kill()
    text = prose(200, 1)  # long enough for windows, which have to be looked up
    response = search(http, text)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, "index_unavailable")
    assert response.headers["Retry-After"] == "1"
    choice = ask(http, memorization=ANNOTATE, max_tokens=100)
    assert choice["memorization"]["verdict"] == "untraced"
    assert choice["memorization"]["recited_tokens"] is None
    assert choice["finish_reason"] == "length"
    response = http.post("/v1/completions", json={**BODY, "memorization": {"action": "block"}})
    assert response.status_code == 400
