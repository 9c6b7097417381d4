"""`talipot serve` in a process of its own, for tests that send signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.e2e.tiny import LONG_CONTEXT

ENGINE = ["--max-slots", "2", "--prefill-buckets", "16", "--token-budget", "32"]
ENGINE += ["--smallest-key-bucket", str(LONG_CONTEXT)]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class ServerProcess:
    """A server over a model; killed, if it still runs, with its context."""

    def __init__(self, model: object, log: Path, *options: str) -> None:
        with log.open("wb") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "api", "serve", "--model", str(model), *ENGINE, *options],
                stderr=errors,
                env={
                    "TALIPOT_OUTPUT_LOG": "false",
                    "TALIPOT_SCORER": "none",
                    **os.environ,
                    "TALIPOT_ACCESS_LOG": "false",
                },
            )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it as the kernel does: without a word."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=60)
