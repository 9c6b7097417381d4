"""A request's deltas as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from serving.output import Delta, join


class RequestStream(AsyncIterator[Delta]):
    """Yields a request's deltas; whoever drops it aborts the request.

    A consumer slower than the engine gets several steps' deltas joined into one, so that what waits
    for it is bounded by the request's own length. Cancelling the iteration closes the stream, as it
    does a generator. For one event loop and one consumer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        abort: Callable[[], None],
        *,
        as_whole: bool = False,
    ) -> None:
        """`abort` is called once if the stream is closed before its last delta was taken in.

        With `as_whole` the consumer is woken twice: for the first delta, whose time may be of
        interest, and for all others at the end.
        """
        self._loop = loop
        self._abort = abort
        self._as_whole = as_whole
        self._holds_back = False  # until the end
        self._pending: list[Delta] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._has_ended = False  # nothing more will be pushed
        self._is_closed = False

    def push(self, delta: Delta) -> None:
        """Hand over a delta; on the event loop only."""
        self._pending.append(delta)
        self._has_ended = delta.finish_reason is not None
        if self._is_due:
            self._wake()

    def fail(self, error: BaseException) -> None:
        """End with an error, raised after what was pushed; on the event loop only."""
        self._error = error
        self._has_ended = True
        self._wake()

    async def __anext__(self) -> Delta:
        """The next delta."""
        while not self._is_due and not self._is_closed:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.close()
                raise
            finally:
                self._waiter = None
        if self._pending and not self._is_closed:
            self._holds_back = self._as_whole
            pending, self._pending = self._pending, []
            return pending[0] if len(pending) == 1 else join(pending)
        if self._error is not None and not self._is_closed:
            self.close()
            raise self._error
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop iterating; the request is aborted if it has not ended."""
        if not self._is_closed:
            self._is_closed = True
            self._pending.clear()
            if not self._has_ended:
                self._abort()

    async def aclose(self) -> None:
        """As `close`; for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        """Abort a request that nobody listens to any more."""
        self.close()

    @property
    def _is_due(self) -> bool:
        return self._has_ended or (bool(self._pending) and not self._holds_back)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
