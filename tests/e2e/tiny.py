"""A tiny random model and a real server around it, for tests of the doors."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jax
import uvicorn
from fastapi import FastAPI

from api.config import ServeConfig
from api.engine import load_engine
from api.grpc.server import GrpcDoor
from api.guard_config import GuardConfig
from api.guards import Guards
from api.http.app import create_app
from model.checkpoint import save_pretrained
from model.config import PaLMConfig
from model.palm import init_parameters
from model.tokenizer import SentencePieceTokenizer
from serving.config import EngineConfig
from serving.engine import Engine
from tests.tiny_tokenizer import VOCAB_SIZE, train_tiny_tokenizer

MODEL_NAME = "tiny"
CONTEXT = 128
LONG_CONTEXT = 4096
ENGINE = EngineConfig(
    max_slots=4,
    prefill_buckets=(16, 64),
    smallest_key_bucket=64,
    max_queued_requests=64,
    # Compared with the model's own float32 numbers; servers in processes of their own quantize.
    quantize="none",
    fail_on_recompilation=True,
)


def save_tiny_model(directory: Path, context: int = CONTEXT) -> Path:
    """Write a two-layer PaLM with random weights and its tokenizer; returns the folder."""
    config = PaLMConfig(
        name=MODEL_NAME,
        vocab_size=VOCAB_SIZE,
        num_layers=2,
        d_model=32,
        num_heads=2,
        head_dim=16,
        d_ff=64,
        max_seq_len=context,
    )
    folder = directory / MODEL_NAME
    tokenizer = SentencePieceTokenizer.from_file(train_tiny_tokenizer(directory))
    save_pretrained(folder, config, init_parameters(config, jax.random.key(0)), tokenizer)
    return folder


PATIENT_ENGINE = dataclasses.replace(
    ENGINE, max_slots=2, max_queued_requests=2, smallest_key_bucket=LONG_CONTEXT
)


def load_tiny_engine(folder: Path, config: EngineConfig = ENGINE) -> Engine:
    """An engine over the tiny model, not started."""
    return load_engine(str(folder), config)


class RunningServer:
    """Both doors in a thread of their own."""

    def __init__(self, app: FastAPI, config: ServeConfig) -> None:
        self.app = app
        self._grpc = GrpcDoor(app.state.service, config)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
        )
        self._thread = threading.Thread(target=self._run, name="test-server")

    def __enter__(self) -> RunningServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()
        self.socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        await self._grpc.start()
        try:
            await self._uvicorn.serve(sockets=[self.socket])
        finally:
            await self._grpc.stop(0)

    @property
    def grpc_target(self) -> str:
        """What gRPC clients connect to, once HTTP answers."""
        return f"127.0.0.1:{self._grpc.port}"


@contextlib.contextmanager
def serving(
    engine: Engine, guards: Guards | None = None, **settings: object
) -> Iterator[RunningServer]:
    """A server over `engine` with the rest of its configuration; by itself it watches nothing."""
    settings = {"output_log": False, "guards": GuardConfig(scorer="none"), **settings}
    config = ServeConfig(grpc_port=0, **settings)  # type: ignore[arg-type]
    with RunningServer(create_app(engine, config, guards), config) as server:
        yield server


def wait_ready(url: str, timeout_s: float = 120.0) -> None:
    """Return when the server at `url` is ready; TimeoutError if it never is."""
    deadline_s = time.monotonic() + timeout_s
    with httpx.Client(base_url=url, timeout=10) as client:
        while time.monotonic() < deadline_s:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health/ready").status_code == 200:
                    return
            time.sleep(0.02)
    raise TimeoutError(f"{url} was not ready after {timeout_s} s")
