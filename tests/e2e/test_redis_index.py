"""A server whose index is in Redis: what it tells, and what it says when Redis is gone."""

import httpx
import pytest
import redis

from api.guard_config import GuardConfig
from api.guards import Guards
from memorization.layout import IndexParameters
from memorization.redis_build import build_redis_index
from memorization.tokenizer import tokenizer_identity
from tests.e2e.test_safety import BODY, ask
from tests.e2e.tiny import load_tiny_engine, serving, wait_ready
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, prose
from tests.redis_server import RedisServer

ANNOTATE = {"action": "annotate"}


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
            tokenizer_identity=tokenizer_identity(engine.tokenizer),
        )
    config = GuardConfig(scorer="none", memorization_index=f"{store.url}?name=books")
    with serving(engine, Guards(config)) as running:
        wait_ready(running.url)
        with httpx.Client(base_url=running.url, timeout=30) as client:
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


# Last: the store does not come back.
def test_redis_gone_is_said_and_nothing_is_blocked_or_passed_in_silence(http, store):
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
