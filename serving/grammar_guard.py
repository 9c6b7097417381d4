"""Says whether a grammar compiles within a time limit, without risking this process."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

_PROBE = Path(__file__).with_name("grammar_probe.py")
# The process itself needs a moment to start, on a busy machine more than one.
_START_TIMEOUT_S = 30.0


class GrammarGuard:
    """A process that compiles grammars first; killed and started anew when one takes too long.

    Any thread may call; calls wait for each other.
    """

    def __init__(self, *, timeout_s: float, limits: Mapping[str, int | bool]) -> None:
        """Nothing is started before the first call.

        Args:
            timeout_s: Seconds that a grammar may take.
            limits: Arguments of `llguidance.LLParserLimits`.
        """
        self.timeout_s = timeout_s
        self._limits = dict(limits)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._kill: weakref.finalize[[subprocess.Popen[str]], GrammarGuard] | None = None

    def problem(self, grammar: str) -> str:
        """What is wrong with a grammar; empty if nothing is."""
        with self._lock:
            process = self._started()
            answer = self._ask(process, grammar, self.timeout_s)
            if answer is None:
                self._end()
                return f"it takes more than {self.timeout_s:g} s or 2 GiB to compile"
            return answer

    def make_ready(self) -> None:
        """Start the process, so that the first grammar need not wait for it."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            # -P: the folder of the file must not stand before the standard library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROBE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
            # Also when nobody calls `close`: when the guard is collected, or at exit.
            self._kill = weakref.finalize(self, _kill, self._process)
            if self._ask(self._process, '{"grammars":[{"json_schema":{}}]}', _START_TIMEOUT_S):
                self._end()
                raise RuntimeError(f"{_PROBE.name} does not compile the simplest grammar")
        return self._process

    def _ask(self, process: subprocess.Popen[str], grammar: str, timeout_s: float) -> str | None:
        """The answer; None if there is none in time or the process has died of it."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"grammar": grammar, "limits": self._limits}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return None
        # Lines are asked for one by one, so nothing of the next is ever in Python's own buffer.
        if not select.select([process.stdout], [], [], timeout_s)[0]:
            return None
        line = process.stdout.readline()
        return str(json.loads(line)) if line else None

    def _end(self) -> None:
        self._process = None
        if self._kill is not None:
            self._kill()


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    with contextlib.suppress(BrokenPipeError), process:  # closes the pipes and waits
        pass
