"""An index on threads of its own, for callers in an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from memorization.errors import IndexUnavailableError, MemorizationError, TrainingIndexError
from memorization.index import NearDuplicate, Span, TrainingIndex

_LOGGER = logging.getLogger("talipot.memorization")
_THREADS = 2
_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class UntracedError(Exception):
    """A text could not be compared: the index failed, does not answer, or is too slow.

    `code` is that of the index's own error, where it said one.
    """

    def __init__(self, message: str, *, code: str = IndexUnavailableError.code) -> None:
        """Say what happened."""
        super().__init__(message)
        self.code = code


class Tracer:
    """Asks an index without making the event loop wait."""

    def __init__(self, index: TrainingIndex, *, timeout_s: float) -> None:
        """An answer that takes longer than `timeout_s` counts as none."""
        self.index = index
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, "talipot-index")
        self.queries_total = 0
        self.failures_total = 0

    @property
    def has_runs(self) -> bool:
        """Whether the index finds verbatim runs, not near duplicates alone."""
        return self.index.sure_tokens is not None

    async def longest_matches(self, tokens: Sequence[int], min_tokens: int) -> list[Span]:
        """As the index's own method.

        Raises:
            UntracedError: There is no answer.
        """
        return await self._ask(self._matches, tokens, min_tokens)

    async def trace(
        self, tokens: Sequence[int], min_tokens: int, text: str
    ) -> tuple[list[Span], list[NearDuplicate] | None]:
        """Runs of the tokens, where the index finds them, and what resembles their text.

        None of the latter where the index cannot tell.

        Raises:
            UntracedError: There is no answer.
        """
        return await self._ask(self._trace, tokens, min_tokens, text)

    async def _ask(self, function: Callable[[*_Arguments], _T], *asked: *_Arguments) -> _T:
        self.queries_total += 1
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await loop.run_in_executor(self._threads, function, *asked)
        except TimeoutError:
            self.failures_total += 1
            raise UntracedError(f"the index took longer than {self._timeout_s:g} s") from None
        except MemorizationError as error:
            self.failures_total += 1
            raise UntracedError(f"the index failed: {error}", code=error.code) from None
        except Exception as error:
            self.failures_total += 1
            _LOGGER.exception("the index failed")
            raise UntracedError(f"the index failed: {type(error).__name__}") from None

    def close(self) -> None:
        """End the threads; what they work on is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, tokens: Sequence[int], min_tokens: int) -> list[Span]:
        return self.index.longest_matches(tokens, min_tokens=min_tokens)

    def _trace(
        self, tokens: Sequence[int], min_tokens: int, text: str
    ) -> tuple[list[Span], list[NearDuplicate] | None]:
        runs = self._matches(tokens, min_tokens) if self.has_runs else []
        return runs, near_duplicates_of(self.index, text)


def near_duplicates_of(index: TrainingIndex, text: str) -> list[NearDuplicate] | None:
    """Corpus windows that resemble a text; None where the index keeps no such information."""
    try:
        return index.near_duplicates(text)
    except TrainingIndexError:
        return None
