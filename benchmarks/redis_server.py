"""A Redis server for a benchmark alone: on a free port, in memory, gone afterwards."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator

import redis

from benchmarks.serving import free_port

_START_S = 20.0


@contextlib.contextmanager
def running_redis() -> Iterator[redis.Redis]:
    """A connection to a server of its own.

    Raises:
        FileNotFoundError: redis-server is not installed.
        redis.ConnectionError: It does not come up.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        server = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        try:
            with redis.Redis(host="127.0.0.1", port=port) as client:
                _wait(client)
                yield client
        finally:
            server.kill()
            server.wait()


def _wait(client: redis.Redis) -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
