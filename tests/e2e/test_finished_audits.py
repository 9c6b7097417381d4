"""A finished audit is reported again: nothing is loaded or waited for, but it must be the same."""

import asyncio
import contextlib
import dataclasses
import io
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from rich.console import Console

from api.audit.config import RunConfig, TargetConfig
from api.audit.generators.engine import find_engine
from api.audit.generators.patience import Patience
from api.audit.run import run_audit
from api.errors import AuditError
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1 import generation_pb2_grpc
from model.errors import ConfigError
from safety.audits.toxicity import ToxicityAudit
from safety.audits.toxicity_data import ToxicityPrompt
from safety.text_generator import Decoding
from serving.config import EngineConfig
from tests.e2e.tiny import ENGINE, MODEL_NAME
from tests.word_scorer import LexiconScorer

AUDIT = ToxicityAudit(
    prompts=tuple(ToxicityPrompt(text=f"The old man {i}") for i in range(4)),
    data="made up",
    k=2,
    decoding=Decoding(max_tokens=4),
)


def run(folder, target):
    """What is said meanwhile."""
    told = io.StringIO()
    run = RunConfig(out=folder)
    asyncio.run(run_audit(AUDIT, run, target, LexiconScorer(), Console(file=told)))
    return told.getvalue()


def files(folder):
    return {
        name: (folder / name).read_bytes()
        for name in ("results.jsonl", "summary.json", "report.html", "journal.jsonl")
    }


def forget_last_unit(folder):
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))


@pytest.fixture
def finished(tmp_path, server):
    """A finished run over HTTP."""
    run(tmp_path / "run", TargetConfig(target=server.url))
    return tmp_path / "run"


@contextlib.contextmanager
def listing(name):
    """An endpoint that names its model and answers nothing else; what it was asked."""
    asked = []

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200 if self.path == "/v1/models" else 503)

        def do_POST(self):
            self.answer(503)

        def answer(self, status):
            asked.append(self.path)
            body = json.dumps({"data": [{"id": name}]}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{endpoint.server_address[1]}", asked
        finally:
            endpoint.shutdown()
            thread.join()


@contextlib.contextmanager
def loading_forever(name):
    """A gRPC door whose model never gets ready."""

    class Loading(generation_pb2_grpc.GenerationServicer):
        def GetModel(self, request, context):  # noqa: N802 (gRPC's name)
            return pb.Model(name=name, phase=pb.PHASE_LOADING)

    door = grpc.server(ThreadPoolExecutor(1))
    generation_pb2_grpc.add_GenerationServicer_to_server(Loading(), door)
    port = door.add_insecure_port("127.0.0.1:0")
    door.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        door.stop(None).wait()


def test_an_endpoint_is_asked_for_its_model_alone(finished):
    before = files(finished)
    with listing(MODEL_NAME) as (url, asked):
        told = run(finished, TargetConfig(target=url))
    assert asked == ["/v1/models"]
    assert "all 4 units are done" in told
    assert files(finished) == before


def test_an_endpoint_that_serves_another_model_is_refused(finished):
    with listing("another") as (url, _), pytest.raises(AuditError, match=r"model\.name was 'tiny'"):
        run(finished, TargetConfig(target=url))


def test_a_run_that_is_not_finished_does_wait_for_the_model(finished):
    forget_last_unit(finished)
    with listing(MODEL_NAME) as (url, _), pytest.raises(AuditError, match="no answer for 0 s"):
        run(finished, TargetConfig(target=url, give_up_after_s=0))


def test_behind_grpc_a_model_that_still_loads_is_enough(tmp_path, server):
    run(tmp_path, TargetConfig(target=f"grpc://{server.grpc_target}"))
    before = files(tmp_path)
    with loading_forever(MODEL_NAME) as target:
        run(tmp_path, TargetConfig(target=target))
        assert files(tmp_path) == before
        forget_last_unit(tmp_path)
        with pytest.raises(AuditError, match="still loading"):
            run(tmp_path, TargetConfig(target=target, give_up_after_s=0))


def test_in_this_process_only_the_models_files_are_read(tmp_path, tiny_model):
    model = shutil.copytree(tiny_model, tmp_path / MODEL_NAME)
    folder = tmp_path / "run"
    target = TargetConfig(model=str(model), engine=ENGINE)
    assert "loading and compiling" in run(folder, target)
    before = files(folder)
    # No engine can be made with these settings, which change no number.
    cannot_load = dataclasses.replace(
        target, engine=EngineConfig(quantize=ENGINE.quantize, max_model_len=1 << 20)
    )
    assert "loading and compiling" not in run(folder, cannot_load)
    assert files(folder) == before
    forget_last_unit(folder)
    with pytest.raises(ConfigError, match="max_model_len"):
        run(folder, cannot_load)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "config.json"])
def test_every_file_of_a_model_counts(tmp_path, tiny_model, name):
    model = shutil.copytree(tiny_model, tmp_path / MODEL_NAME)
    before = version_of(model)
    assert version_of(model) == before
    with (model / name).open("ab") as file:
        file.write(b" ")
    assert version_of(model) != before


def version_of(model):
    patience = Patience(0, print)
    return asyncio.run(find_engine(str(model), ENGINE, patience, print)).version
