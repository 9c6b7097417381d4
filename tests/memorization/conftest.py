"""A tokenizer, corpora on disk, and a Redis server of the tests' own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from model.checkpoint import resolve_model
from model.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def tiny() -> Tokenizer:
    """The embedded model's tokenizer."""
    return load_tokenizer(resolve_model("talipot-tiny"))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server on a free port, ended with the session."""
    with running_redis(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A connection to an empty database."""
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


class running_redis:  # noqa: N801
    """`with running_redis(folder) as (url, process)`: a server, killed at the end."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed; `.ci/install test` does"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [
                *(program, "--port", str(self._port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            ],
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> tuple[str, subprocess.Popen[bytes]]:
        url = f"redis://127.0.0.1:{self._port}/0"
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(url) as connection:
            while True:
                try:
                    connection.ping()
                except redis.ConnectionError:
                    assert self._process.poll() is None, "redis-server stopped"
                    assert time.monotonic() < deadline, "redis-server does not answer"
                else:
                    return url, self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def write_jsonl(path: Path, records: list[dict[str, object]]) -> Path:
    """Write a corpus file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
