"""`talipot serve` in a process of its own: start, readiness, signals, exit code."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1.generation_pb2_grpc import GenerationStub
from tests.e2e.grpc_client import failure_of, request, stub_for
from tests.e2e.processes import ENGINE, free_port
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


class Process:
    def __init__(self, model: object, *options: str) -> None:
        port, grpc_port = str(free_port()), str(free_port())
        self.url = f"http://127.0.0.1:{port}"
        self.grpc_target = f"127.0.0.1:{grpc_port}"
        self._data = tempfile.TemporaryDirectory()
        self.popen = subprocess.Popen(
            [
                *(sys.executable, "-m", "api", "serve", "--model", str(model), "--port", port),
                *("--grpc-port", grpc_port, *ENGINE, *options),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "TALIPOT_USE_COMPILATION_CACHE": "false",
                # Generations that end while the server drains are logged as well.
                "TALIPOT_DATA_DIR": self._data.name,
            },
        )

    def close(self) -> None:
        """Remove what it wrote."""
        self._data.cleanup()

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
        started.close()


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


def test_grpc_is_not_serving_before_it_is_ready_and_while_it_drains(patient_model):
    with process(patient_model) as server, grpc.insecure_channel(server.grpc_target) as channel:
        stub, health = GenerationStub(channel), health_pb2_grpc.HealthStub(channel)
        wait_until_listening(server.url)

        def status():
            return health.Check(health_pb2.HealthCheckRequest()).status

        watched = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == status() == health_pb2.HealthCheckResponse.NOT_SERVING
        model = stub.GetModel(pb.GetModelRequest())
        assert model.phase in (pb.PHASE_LOADING, pb.PHASE_COMPILING)
        early = failure_of(lambda: list(stub.Generate(request())))
        assert (early.status, early.reason) == ("UNAVAILABLE", "NOT_READY")
        assert early.retry_after_s > 0
        early = failure_of(lambda: list(stub.GenerateBatch(iter(()))))
        assert (early.status, early.reason) == ("UNAVAILABLE", "NOT_READY")

        assert next(watched).status == status() == health_pb2.HealthCheckResponse.SERVING
        running = stub.Generate(
            request(max_tokens=LONG["max_tokens"], ignore_eos=True, temperature=0)
        )
        next(running)
        server.popen.send_signal(signal.SIGTERM)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        late = failure_of(lambda: list(stub.Generate(request())))
        assert (late.status, late.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
        assert list(running)[-1].finish_reason == pb.FINISH_REASON_LENGTH
        code, errors = server.wait()
        assert code == 0, errors
        assert "Traceback" not in errors


def test_a_grpc_stream_ends_with_an_error_when_there_is_no_more_time(patient_model):
    with process(patient_model, "--drain-timeout-s", "0") as server:
        wait_ready(server.url)
        with stub_for(server.grpc_target) as stub:
            running = stub.Generate(request(max_tokens=LONG["max_tokens"], n=16, ignore_eos=True))
            next(running)
            server.popen.send_signal(signal.SIGTERM)
            ended = failure_of(lambda: list(running))
        assert (ended.status, ended.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
        code, errors = server.wait()
        assert code == 0, errors
        assert "Traceback" not in errors


def test_a_grpc_port_in_use_is_an_error_that_names_it(patient_model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with process(patient_model, "--grpc-port", port) as server:
            code, errors = server.wait()
    assert code == 1
    assert f"127.0.0.1:{port}" in errors
    assert "--no-grpc" in errors
    assert "Traceback" not in errors


def test_grpc_can_be_left_out(patient_model):
    with process(patient_model, "--no-grpc") as server:
        wait_until_listening(server.url)
        with stub_for(server.grpc_target) as stub:
            found = failure_of(lambda: stub.GetModel(pb.GetModelRequest()))
        assert found.status == "UNAVAILABLE"
