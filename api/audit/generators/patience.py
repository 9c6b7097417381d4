"""Trying again while an endpoint is full, restarting or away, and when to stop trying."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.batch.retry import delay_s
from api.errors import AuditError

_T = TypeVar("_T")
_NOTE_EVERY_S = 5.0


class TransientError(Exception):
    """An attempt failed in a way that a later one may not."""

    def __init__(self, reason: str, told_s: float | None = None) -> None:
        """Say why, and for how long the endpoint told to wait."""
        super().__init__(reason)
        self.told_s = told_s


class Patience:
    """Shared by all calls to one endpoint: a success of any shows that it lives."""

    def __init__(self, give_up_after_s: float, note: Callable[[str], None]) -> None:
        """Give up when nothing has succeeded for so long; `note` tells people of waiting."""
        self._give_up_after_s = give_up_after_s
        self._note = note
        self._rng = random.Random()  # for jitter alone, which must differ between clients
        self._failing_since_s: float | None = None
        self._noted_s = -_NOTE_EVERY_S

    async def call(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """The result of the first attempt that succeeds.

        Raises:
            AuditError: The endpoint has answered nothing for too long.
        """
        failures = 0
        while True:
            try:
                result = await attempt()
            except TransientError as error:
                failures += 1
                self._give_up_if_late(error)
                pause_s = delay_s(failures, error.told_s, self._rng)
                self._tell(f"{error}; trying again")
                await asyncio.sleep(pause_s)
            else:
                self._failing_since_s = None
                return result

    def _give_up_if_late(self, error: TransientError) -> None:
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if now_s - self._failing_since_s >= self._give_up_after_s:
            raise AuditError(
                f"no answer for {self._give_up_after_s:g} s (give_up_after_s), the last reason: "
                f"{error}. What is done is kept; the same command goes on from there."
            )

    def _tell(self, text: str) -> None:
        if time.monotonic() - self._noted_s >= _NOTE_EVERY_S:
            self._noted_s = time.monotonic()
            self._note(text)
