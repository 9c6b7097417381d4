"""A server that is full says so, and one whose clients leave gets its slots back."""

import concurrent.futures
import contextlib
import json
import time

import httpx
import pytest

from tests.e2e.tiny import (
    LONG_CONTEXT,
    MODEL_NAME,
    PATIENT_ENGINE,
    load_tiny_engine,
    serving,
    wait_ready,
)

LONG = {
    "model": MODEL_NAME,
    "prompt": "It was",
    "max_tokens": LONG_CONTEXT - 64,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def patient(patient_model):
    with serving(load_tiny_engine(patient_model, PATIENT_ENGINE)) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture
def client(patient):
    with httpx.Client(base_url=patient.url, timeout=60) as found:
        yield found


def stats(server):
    return server.app.state.service.host.stats()


def wait_until(condition, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def outcomes(client):
    lines = client.get("/metrics").text.splitlines()
    found = [line.split() for line in lines if line.startswith("talipot_requests_total{")]
    return {name.split('"')[1]: float(value) for name, value in found}


def test_a_stream_whose_client_leaves_is_aborted(patient, client):
    before, cancelled = stats(patient), outcomes(client)["cancelled"]
    with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
        assert stats(patient).running == 1
    wait_until(lambda: stats(patient).running == 0)
    generated = stats(patient).generated_tokens_total - before.generated_tokens_total
    assert generated < LONG["max_tokens"] / 2
    wait_until(lambda: outcomes(client)["cancelled"] == cancelled + 1)


def test_a_request_whose_client_leaves_is_aborted(patient, client):
    before = stats(patient)
    with (
        httpx.Client(base_url=patient.url, timeout=0.3) as impatient,
        contextlib.suppress(httpx.ReadTimeout),
    ):
        impatient.post("/v1/completions", json={**LONG, "n": 2})
    wait_until(lambda: stats(patient).running == 0)
    generated = stats(patient).generated_tokens_total - before.generated_tokens_total
    assert generated < LONG["max_tokens"]


def test_a_full_server_refuses_and_says_when_to_come_back(patient, client):
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(4))
        streams = [
            stack.enter_context(
                client.stream("POST", "/v1/completions", json={**LONG, "stream": True})
            )
            for _ in range(2)
        ]
        waiting = [pool.submit(client.post, "/v1/completions", json=LONG) for _ in range(2)]
        wait_until(lambda: (stats(patient).running, stats(patient).queued) == (2, 2))
        for body in (LONG, {**LONG, "stream": True}, {**LONG, "n": 3}):
            refused = client.post("/v1/completions", json=body)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "overloaded"
        assert (stats(patient).running, stats(patient).queued) == (2, 2)
        for stream in streams:
            stream.close()
        answers = [future.result() for future in waiting]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert outcomes(client)["rejected"] >= 3


def test_streams_of_a_full_server_are_whole(patient, client):
    """Four at once on two slots: every stream has all its tokens and its end."""
    body = {**LONG, "max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}}

    def read(_):
        with client.stream("POST", "/v1/completions", json=body) as response:
            return [line[6:] for line in response.iter_lines() if line]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for lines in pool.map(read, range(4)):
            assert lines[-1] == "[DONE]"
            assert json.loads(lines[-2])["usage"]["completion_tokens"] == 40
