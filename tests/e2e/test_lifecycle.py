"""`talipot serve` in a process of its own: start, readiness, signals, exit code."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.tiny import LONG_CONTEXT, MODEL_NAME, wait_ready

LONG = {
    "model": MODEL_NAME,
    "prompt": "It was",
    "max_tokens": LONG_CONTEXT - 64,
    "ignore_eos": True,
    "stream": True,
}
# More choices than slots: still running however late the second signal comes.
ENDLESS = {**LONG, "n": 16}
ENGINE = ["--max-slots", "2", "--prefill-buckets", "16", "--token-budget", "32"]
ENGINE += ["--smallest-key-bucket", str(LONG_CONTEXT)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Process:
    def __init__(self, model: object, *options: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        self.popen = subprocess.Popen(
            [
                *(sys.executable, "-m", "api", "serve", "--model", str(model), "--port", port),
                *("--grpc-port", "0", *ENGINE, *options),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TALIPOT_USE_COMPILATION_CACHE": "false"},
        )

    def wait(self, timeout_s: float = 60) -> tuple[int, str]:
        """Exit code and standard error."""
        _, errors = self.popen.communicate(timeout=timeout_s)
        return self.popen.returncode, errors


@contextlib.contextmanager
def process(model: object, *options: str) -> Iterator[Process]:
    started = Process(model, *options)
    try:
        yield started
    finally:
        if started.popen.poll() is None:
            started.popen.kill()
            started.popen.communicate()


def wait_until_listening(url: str, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            httpx.get(f"{url}/health/live").raise_for_status()
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_it_listens_before_it_is_ready_and_drains_on_sigterm(patient_model):
    with process(patient_model) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        wait_until_listening(server.url)
        early = client.get("/health/ready")
        assert early.status_code == 503
        assert early.json()["status"] in ("loading", "compiling")
        refused = client.post("/v1/completions", json=LONG)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "not_ready"
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/v1/models").json()["data"][0]["id"] == MODEL_NAME

        wait_ready(server.url)
        with client.stream("POST", "/v1/completions", json=LONG) as response:
            lines = (line for line in response.iter_lines() if line)
            next(lines)
            server.popen.send_signal(signal.SIGTERM)
            while client.get("/health/ready").status_code == 200:
                pass
            refused = client.post("/v1/completions", json=LONG)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            rest = list(lines)
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        code, errors = server.wait()
        assert code == 0, errors
        assert "Traceback" not in errors


@pytest.mark.parametrize("way", ["timeout", "second signal"])
def test_running_requests_end_with_an_error_when_there_is_no_more_time(patient_model, way):
    timeout_s = "0.1" if way == "timeout" else "60"
    with process(patient_model, "--drain-timeout-s", timeout_s) as server:
        wait_ready(server.url)
        url = f"{server.url}/v1/completions"
        with httpx.stream("POST", url, json=ENDLESS, timeout=60) as found:
            lines = (line for line in found.iter_lines() if line)
            next(lines)
            server.popen.send_signal(signal.SIGINT)
            if way == "second signal":
                # Signals that arrive together are one.
                while httpx.get(f"{server.url}/health/ready").status_code == 200:
                    pass
                server.popen.send_signal(signal.SIGINT)
            rest = list(lines)
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["error"]["code"] == "shutting_down"
        code, errors = server.wait()
        assert code == 0, errors
        assert "Traceback" not in errors


def test_a_signal_while_loading_ends_it_in_order(patient_model):
    with process(patient_model) as server:
        wait_until_listening(server.url)
        server.popen.send_signal(signal.SIGTERM)
        code, errors = server.wait()
        assert code == 0, errors
        assert "Traceback" not in errors


def test_a_model_that_is_not_there_is_an_error_at_once():
    with process("no/such/model") as server:
        code, errors = server.wait()
    assert code == 1
    assert "no/such/model" in errors
    assert "Traceback" not in errors


def test_a_bad_setting_is_an_error_at_once(patient_model):
    with process(patient_model, "--max-choices", "0") as server:
        code, errors = server.wait()
    assert code == 1
    assert "max_choices=0" in errors


def test_a_damaged_model_ends_the_server_with_an_error(patient_model, tmp_path):
    for file in patient_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with process(tmp_path) as server:
        code, errors = server.wait()
    assert code == 1
    assert "model.safetensors" in errors
