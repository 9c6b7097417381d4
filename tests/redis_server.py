"""A real redis-server, for tests of what speaks with one."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
import redis

from tests.e2e.processes import free_port


class RedisServer:
    """A server whose data outlives it, killed and started again at will."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = shutil.which("redis-server")
        if command is None:
            pytest.fail("redis-server is not installed; these tests need it")
        self._popen = subprocess.Popen(
            [
                *(command, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "always"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + 20
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline_s
                time.sleep(0.02)

    def kill(self) -> None:
        """End it without a word."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None

    def flush(self) -> None:
        """Empty it."""
        with redis.Redis(port=self.port) as client:
            client.flushall()
