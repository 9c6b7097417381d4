"""`talipot batch` in a process of its own: every line answered once, whoever is killed."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from api.batch.results import ResultFile
from tests.e2e.grpc_client import wait_until
from tests.e2e.processes import ServerProcess, free_port
from tests.e2e.tiny import (
    LONG_CONTEXT,
    MODEL_NAME,
    PATIENT_ENGINE,
    load_tiny_engine,
    serving,
    wait_ready,
)

LONG = LONG_CONTEXT - 64


class Batch:
    """A folder with an input, and the command over it."""

    def __init__(self, folder: Path, lines: list[dict]) -> None:
        self.requests = folder / "in.jsonl"
        self.results = folder / "out.jsonl"
        self.requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.ids = [line["id"] for line in lines]

    def start(self, target: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "api", "batch", "--target", target, *options),
                *(str(self.requests), str(self.results)),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, target: str, *options: str) -> tuple[int, str]:
        with self.start(target, *options) as process:
            _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    def records(self) -> dict[str, dict]:
        found = [json.loads(line) for line in self.results.read_text().splitlines()]
        assert len({record["id"] for record in found}) == len(found)
        return {record["id"]: record for record in found}

    def count(self) -> int:
        return self.results.read_bytes().count(b"\n") if self.results.exists() else 0


def lines_of(count: int, **fields) -> list[dict]:
    return [
        {"id": f"line-{i}", "prompt": f"It was {i}", "max_tokens": 6, "seed": i, **fields}
        for i in range(count)
    ]


@pytest.fixture
def target(server):
    return server.grpc_target


def test_every_line_is_answered_with_what_http_gives(tmp_path, target, http):
    batch = Batch(tmp_path, lines_of(12, ignore_eos=True))
    code, errors = batch.run(target)
    assert code == 0, errors
    assert "12/12 lines" in errors
    records = batch.records()
    assert sorted(records) == sorted(batch.ids)
    body = {"model": MODEL_NAME, "prompt": "It was 3", "max_tokens": 6, "seed": 3}
    answer = http.post("/v1/completions", json={**body, "ignore_eos": True}).json()
    assert records["line-3"] == {
        "id": "line-3",
        "text": answer["choices"][0]["text"],
        "finish_reason": "length",
        "usage": answer["usage"],
        "model": MODEL_NAME,
    }
    before = batch.results.read_bytes()
    assert batch.run("127.0.0.1:1")[0] == 0  # nothing to do: no server is asked
    assert batch.results.read_bytes() == before


def test_what_the_server_refuses_is_an_error_line_and_is_tried_again(tmp_path, target):
    lines = lines_of(4)
    lines[1]["max_tokens"] = 10_000
    batch = Batch(tmp_path, lines)
    code, errors = batch.run(target)
    assert code == 1
    assert "3/4 lines, 1 failed" in errors
    error = batch.records()["line-1"]["error"]
    assert (error["code"], error["field"]) == ("context_length_exceeded", "max_tokens")
    assert "max_tokens=10000" in error["message"]
    kept = {name: record for name, record in batch.records().items() if name != "line-1"}
    lines[1]["max_tokens"] = 3
    batch = Batch(tmp_path, lines)
    assert batch.run(target)[0] == 0
    assert batch.records()["line-1"]["usage"]["completion_tokens"] == 3
    assert {name: record for name, record in batch.records().items() if name in kept} == kept


def test_choices_and_logprobs_are_written(tmp_path, target):
    fields = {"n": 2, "logprobs": 1, "prompt_logprobs": 0, "stop": "zzz", "logit_bias": {"5": -1}}
    batch = Batch(tmp_path, lines_of(1, ignore_eos=True, echo=True, **fields))
    assert batch.run(target)[0] == 0
    (record,) = batch.records().values()
    assert len(record["choices"]) == 2
    assert record["choices"][0]["text"] == record["text"]
    assert record["text"].startswith("It was 0")
    assert [len(token["top"]) for token in record["logprobs"]] == [1] * 6
    assert record["prompt_logprobs"][0]["logprob"] is None


def test_a_bad_input_is_refused_before_anything_is_sent(tmp_path):
    batch = Batch(tmp_path, [*lines_of(2), *lines_of(1)])
    code, errors = batch.run("127.0.0.1:1")
    assert code == 1
    assert "in.jsonl line 3: id='line-0' is that of line 1 already" in errors
    assert "Traceback" not in errors
    assert not batch.results.exists()


def test_a_server_that_is_not_there_is_given_up(tmp_path):
    batch = Batch(tmp_path, lines_of(2))
    code, errors = batch.run(f"127.0.0.1:{free_port()}", "--give-up-after-s", "0")
    assert code == 1
    assert "UNAVAILABLE" in errors
    assert "the same command goes on" in " ".join(errors.split())
    assert "Traceback" not in errors


def test_an_output_in_use_is_left_alone(tmp_path, target):
    batch = Batch(tmp_path, lines_of(2))
    with ResultFile(batch.results):
        code, errors = batch.run(target)
    assert code == 1
    assert "in use by another talipot batch" in errors
    assert batch.run(target)[0] == 0


def test_a_full_server_gets_everything_in_the_end(tmp_path, patient_model):
    """One slot and one place in the queue for what 8 requests in flight ask."""
    engine = engine_of(max_slots=1, max_queued_requests=1)
    batch = Batch(tmp_path, lines_of(16))
    with serving(load_tiny_engine(patient_model, engine)) as server:
        wait_ready(server.url)
        code, errors = batch.run(server.grpc_target, "--max-in-flight", "8")
    assert code == 0, errors
    assert sorted(batch.records()) == sorted(batch.ids)


def test_a_client_that_is_killed_goes_on_where_it_was(tmp_path, patient_model):
    # The last ones take so long that it is killed in the middle, however late that is seen.
    lines = lines_of(40, ignore_eos=True)
    for line in lines[38:]:
        line["max_tokens"] = LONG
    batch = Batch(tmp_path, lines)
    whole = Batch(make_folder(tmp_path / "whole"), lines)
    engine = engine_of(max_slots=1)
    with serving(load_tiny_engine(patient_model, engine)) as server:
        wait_ready(server.url)
        with batch.start(server.grpc_target) as client:
            wait_until(lambda: batch.count() >= 10)
            client.kill()
            client.communicate()
        assert client.returncode == -signal.SIGKILL
        stats = server.app.state.service.host.stats
        wait_until(lambda: (stats().running, stats().queued) == (0, 0))
        done = batch.count()
        assert 10 <= done < 40
        # As if it had been killed while it wrote.
        torn = json.dumps({"id": "line-39", "text": "torn"})[:-4]
        with batch.results.open("a") as file:
            file.write(torn)
        finished = stats().finished_total
        code, errors = batch.run(server.grpc_target)
        assert code == 0, errors
        assert f"{done}/40 lines" in errors
        assert stats().finished_total - finished == 40 - done
        assert whole.run(server.grpc_target)[0] == 0
    assert sorted(batch.records()) == sorted(batch.ids)
    assert batch.records() == whole.records()


def test_a_server_that_is_killed_and_comes_back_loses_nothing(tmp_path, patient_model):
    lines = lines_of(40, ignore_eos=True)
    for line in lines[38:]:
        line["max_tokens"] = LONG
    batch = Batch(tmp_path, lines)
    whole = Batch(make_folder(tmp_path / "whole"), lines)
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()))
    target = f"127.0.0.1:{ports[3]}"
    cache = ("--compilation-cache-dir", str(tmp_path / "xla"))
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(
            ServerProcess(patient_model, tmp_path / "first.log", *ports, *cache)
        )
        # Started before the server is ready: it waits until it is.
        client = stack.enter_context(batch.start(target))
        stack.callback(end, client)
        wait_ready(f"http://127.0.0.1:{ports[1]}", timeout_s=300)
        wait_until(lambda: batch.count() >= 10, timeout_s=120)
        first.kill()
        assert batch.count() < 40
        second = stack.enter_context(
            ServerProcess(patient_model, tmp_path / "second.log", *ports, *cache)
        )
        _, errors = client.communicate(timeout=500)
        assert client.returncode == 0, errors
        assert "trying again in" in errors
        assert whole.run(target)[0] == 0
        assert second.stop() == 0
    assert sorted(batch.records()) == sorted(batch.ids)
    assert batch.records() == whole.records()


def test_a_key_is_sent(tmp_path, tiny_model):
    keys = tmp_path / "keys"
    keys.write_text("2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\n")  # "key"
    batch = Batch(tmp_path, lines_of(2))
    with serving(load_tiny_engine(tiny_model), api_key_file=keys) as server:
        wait_ready(server.url)
        code, errors = batch.run(server.grpc_target)
        assert code == 1
        assert "UNAUTHENTICATED" in errors
        assert batch.run(server.grpc_target, "--api-key", "key")[0] == 0


def engine_of(**fields):
    return dataclasses.replace(PATIENT_ENGINE, **{"max_queued_requests": 256, **fields})


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.communicate()
