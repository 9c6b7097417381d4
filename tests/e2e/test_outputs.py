"""From a finished generation through the output log to what a worker found in it."""

import contextlib
import sqlite3
import time

import httpx
import pytest

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.guard_config import GuardConfig, OutputConfig
from api.guards import Guards
from api.outputs.log import Retention, open_log
from api.outputs.pipelines import SafetyPipeline
from api.outputs.worker import Worker
from safety.scoring_thread import ScoringThread
from tests.e2e.grpc_client import request as grpc_request
from tests.e2e.grpc_client import stub_for
from tests.e2e.tiny import MODEL_NAME, load_tiny_engine, serving, wait_ready
from tests.lexicon_scorer import LexiconScorer

BODY = {"model": MODEL_NAME, "prompt": "It was", "max_tokens": 12, "seed": 5, "ignore_eos": True}


@pytest.fixture(scope="module", autouse=True)
def _no_redis():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TALIPOT_REDIS_URL", raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(tiny_model, folder):
    scorer = LexiconScorer()
    guards = Guards(GuardConfig(), ScoringThread(lambda: scorer))
    outputs = OutputConfig(data_dir=folder)
    engine = load_tiny_engine(tiny_model)
    with serving(engine, guards, output_log=True, outputs=outputs) as found:
        wait_ready(found.url)
        yield found


@pytest.fixture
def http(running):
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture
def work(folder):
    """Do all that is there to do."""
    log = open_log(folder, Retention(), lease_s=60)
    scorer = LexiconScorer({"": {"toxicity": 0.25}})
    worker = Worker(log, [SafetyPipeline(scorer)], batch=8, max_deliveries=3)
    yield worker.run_once
    log.close()


def get_when_logged(http, path, status=202):
    """The answer once the generation is in the log, and not on its way to it."""
    deadline_s = time.monotonic() + 20
    while True:
        waiting = "talipot_output_log_waiting 0.0" in http.get("/metrics").text
        response = http.get(path)
        if waiting and response.status_code == status:
            return response.json()
        assert response.status_code in (200, 202), response.text
        assert time.monotonic() < deadline_s


def test_a_generation_is_pending_until_a_worker_has_been_at_it(http, work):
    answer = http.post("/v1/completions", json={**BODY, "n": 2}).json()
    path = f"/v1/generations/{answer['id']}/safety"
    assert http.get(path).status_code == 202  # at once, wherever it is
    pending = get_when_logged(http, path)
    assert (pending["status"], pending["choices"]) == ("pending", [])
    work()
    done = get_when_logged(http, path, 200)
    assert done["object"] == "generation.safety"
    assert [choice["index"] for choice in done["choices"]] == [0, 1]
    assert done["choices"][0] == {
        "index": 0,
        "status": "done",
        "scores": {"toxicity": 0.25, "insult": 0.01, "threat": 0.01},
        "scorer": {"name": "lexicon", "version": "1+test"},
    }
    assert http.get(path.replace("safety", "memorization")).status_code == 202


def test_streams_and_grpc_calls_are_logged_as_they_left(http, running, folder, work):
    with http.stream("POST", "/v1/completions", json={**BODY, "stream": True, "echo": True}) as got:
        lines = [line for line in got.iter_lines() if line.startswith('data: {"id":')]
    streamed = lines[0].split('"')[3]
    fields = {name: value for name, value in BODY.items() if name not in ("model", "prompt")}
    with stub_for(running.grpc_target) as stub:
        *_, last = stub.Generate(grpc_request("It was", **fields))
        item = pb.GenerateBatchRequest(id="a", request=grpc_request("It was", n=3, **fields))
        (batch,) = stub.GenerateBatch(iter([item]))
    ids = (streamed, last.generation_id, batch.result.generation_id)
    for name in ids:
        get_when_logged(http, f"/v1/generations/{name}/safety")
    work()
    for name, choices in zip(ids, (1, 1, 3), strict=True):
        found = get_when_logged(http, f"/v1/generations/{name}/safety", 200)
        assert len(found["choices"]) == choices
    with contextlib.closing(sqlite3.connect(folder / "outputs.sqlite")) as db:
        texts = db.execute(
            "SELECT json_extract(body, '$.text') FROM records WHERE call IN (?, ?)", ids[:2]
        ).fetchall()
    text = http.post("/v1/completions", json=BODY).json()["choices"][0]["text"]
    assert texts == [(text,), (text,)]  # without the echoed prompt


def test_what_was_blocked_is_logged_as_far_as_it_left(http, folder):
    body = {**BODY, "safety": {"action": "block", "threshold": 0, "window_tokens": 4}}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == ""
    get_when_logged(http, f"/v1/generations/{answer['id']}/safety")
    with contextlib.closing(sqlite3.connect(folder / "outputs.sqlite")) as db:
        ((text, reason),) = db.execute(
            "SELECT json_extract(body, '$.text'), json_extract(body, '$.finish_reason') "
            "FROM records WHERE call = ?",
            (answer["id"],),
        ).fetchall()
    assert (text, reason) == ("", "content_filter")


def test_an_unknown_generation_is_not_found(http, server):
    for url in (str(http.base_url), server.url):  # the second one has no log
        response = httpx.get(f"{url}/v1/generations/cmpl-unknown/safety".replace("//v1", "/v1"))
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


def test_the_logs_figures_are_metrics(http):
    http.post("/v1/completions", json=BODY)
    deadline_s = time.monotonic() + 20
    while 'talipot_output_log_lag{group="memorization"}' not in (text := http.get("/metrics").text):
        assert time.monotonic() < deadline_s
    for name in ("up 1.0", "dropped_total 0.0", 'pending{group="safety"} 0.0'):
        assert f"talipot_output_log_{name}" in text


def test_hashed_texts_never_reach_the_disk(tiny_model, tmp_path):
    scorer = LexiconScorer({"": {"toxicity": 0.25}})
    guards = Guards(GuardConfig(), ScoringThread(lambda: scorer))
    outputs = OutputConfig(data_dir=tmp_path, log_texts="hashed")
    body = {**BODY, "prompt": "It was the best of secrets"}
    engine = load_tiny_engine(tiny_model)
    with serving(engine, guards, output_log=True, outputs=outputs) as running:
        wait_ready(running.url)
        with httpx.Client(base_url=running.url, timeout=30) as http:
            answer = http.post("/v1/completions", json=body).json()
            path = f"/v1/generations/{answer['id']}/safety"
            get_when_logged(http, path)
            stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
            assert answer["id"].encode() in stored
            assert b"secrets" not in stored
            assert answer["choices"][0]["text"].encode() not in stored
            log = open_log(tmp_path, Retention(), lease_s=60)
            Worker(log, [SafetyPipeline(LexiconScorer())], batch=8, max_deliveries=3).run_once()
            log.close()
            (choice,) = get_when_logged(http, path, 200)["choices"]
            assert choice["scores"]["toxicity"] == 0.25
