"""How far a batch is: a bar in a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_WINDOW_S = 30.0
_PLAIN_EVERY_S = 10.0
_BAR_EVERY_S = 0.5


class Pace:
    """Rates over the last half minute."""

    def __init__(self, now_s: float) -> None:
        """Start counting."""
        self._answers: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._start_s = now_s

    def add(self, now_s: float, tokens: int) -> None:
        """An answer of so many tokens came."""
        self._answers.append((now_s, tokens))
        self._tokens += tokens

    def rates(self, now_s: float) -> tuple[float, float]:
        """(answers, tokens) a second."""
        while self._answers and self._answers[0][0] < now_s - _WINDOW_S:
            self._tokens -= self._answers.popleft()[1]
        elapsed_s = max(min(now_s - self._start_s, _WINDOW_S), 1e-3)
        return len(self._answers) / elapsed_s, self._tokens / elapsed_s


class BatchProgress:
    """Counts answers and shows them on standard error."""

    def __init__(
        self,
        total: int,
        done: int,
        console: Console,
        things: str = "lines",
        *,
        has_tokens: bool = True,
    ) -> None:
        """Of `total` things `done` had a result before; without a model none has tokens."""
        self.total, self.done, self.failed = total, done, 0
        self._things = things
        self._has_tokens = has_tokens
        self._console = console
        self._pace = Pace(time.monotonic())

    def answered(self, tokens: int, *, is_error: bool) -> None:
        """A line has its answer."""
        self._pace.add(time.monotonic(), tokens)
        self.done += not is_error
        self.failed += is_error

    def note(self, text: str) -> None:
        """Say something that people should know."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The state in words."""
        lines_per_s, tokens_per_s = self._pace.rates(time.monotonic())
        left = self.total - self.done - self.failed
        eta = _clock(left / lines_per_s) if lines_per_s else "?"
        failed = f", {self.failed} failed" if self.failed else ""
        if self._has_tokens:
            pace = f"{tokens_per_s:.0f} tokens/s"
        else:
            pace = f"{lines_per_s:.1f} {self._things}/s"
        return (
            f"{self.done}/{self.total} {self._things}{failed}, {pace}, "
            f"ETA {eta if left else _clock(0)}"
        )

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the state while the batch runs, and at its end."""
        show = self._show_bar if self._console.is_terminal else self._show_lines
        task = asyncio.create_task(show())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.note(self.line())

    async def _show_lines(self) -> None:
        self.note(self.line())
        while True:
            await asyncio.sleep(_PLAIN_EVERY_S)
            self.note(self.line())

    async def _show_bar(self) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=self.total)
            while True:
                text = self.line().partition(f" {self._things}")[2].lstrip(", ")
                bar.update(task, completed=self.done + self.failed, description=text)
                await asyncio.sleep(_BAR_EVERY_S)


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
