"""The batch's way over the wire: one stream, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc.aio

from api.batch import retry
from api.batch.progress import BatchProgress
from api.batch.records import to_record
from api.batch.results import ResultFile
from api.batch.work import Attempt, Work
from api.config import BatchConfig
from api.errors import BatchError
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1.generation_pb2_grpc import GenerationStub
from api.streams import gather

_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.GenerateBatchRequest, pb.GenerateBatchResponse]"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that vanished without a word is found by a ping.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # How long to wait is decided here, not also in the channel. (Its least time is left alone: that
    # is also how long a slow server has to accept.)
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclasses.dataclass(frozen=True)
class _Pause:
    """Why nothing can be sent now, and the seconds that the server told to wait."""

    reason: str
    told_s: float | None


class BatchClient:
    """Sends what there is to do and writes down what comes back."""

    def __init__(
        self, config: BatchConfig, work: Work, results: ResultFile, progress: BatchProgress
    ) -> None:
        """Nothing is sent before `run`."""
        self._config = config
        self._work = work
        self._results = results
        self._progress = progress
        key = config.api_key
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self._rng = random.Random()  # for jitter alone, which must differ between clients
        self._failures = 0
        self._failing_since_s: float | None = None
        self._pause: _Pause | None = None
        self._is_complete = False
        self._has_ended = False
        self._changed = asyncio.Event()

    async def run(self, check_size: Callable[[int], None]) -> None:
        """Return when every request has its answer.

        Args:
            check_size: Called with the bytes of the largest message that the server reads, before
                any is sent.

        Raises:
            BatchError: The server refuses all of it, or was not there for too long.
        """
        async with grpc.aio.insecure_channel(self._config.target, options=_OPTIONS) as channel:
            stub = GenerationStub(channel)

            async def check() -> None:
                model = await stub.GetModel(pb.GetModelRequest(), metadata=self._metadata)
                check_size(model.limits.max_message_bytes)

            await self._until_it_works(check)
            await self._until_it_works(lambda: self._session(stub))

    async def _until_it_works(self, attempt: Callable[[], Awaitable[_Pause | None]]) -> None:
        while True:
            try:
                pause = await attempt()
            except grpc.aio.AioRpcError as error:
                reason = f"{self._config.target}: {error.code().name}: {error.details()}"
                if not retry.is_transient_call(error):
                    raise BatchError(reason) from None
                pause = _Pause(reason, retry.told_by_call(error))
            if pause is None:
                return
            self._failures += 1
            self._give_up_if_late(pause.reason)
            delay_s = retry.delay_s(self._failures, pause.told_s, self._rng)
            self._progress.note(f"{pause.reason}; trying again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)

    async def _session(self, stub: GenerationStub) -> _Pause | None:
        """One stream from its opening to its end; None if nothing is left to do."""
        self._pause = None
        self._has_ended = False
        call: _Call = stub.GenerateBatch(metadata=self._metadata)
        try:
            await gather([self._send(call), self._receive(call)])
        finally:
            call.cancel()
            self._work.put_all_back(time.monotonic())
        if self._pause is None and not self._is_complete:
            return _Pause(f"{self._config.target} ended the stream", None)
        return self._pause

    async def _send(self, call: _Call) -> None:
        """Keep as many requests under way as may be; an error of the call is `_receive`'s."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while not (self._is_complete or self._has_ended or self._pause):
                self._changed.clear()
                now_s = time.monotonic()
                found: Attempt | float | None = None
                if self._work.under_way < self._config.max_in_flight:
                    found = self._work.take(now_s)
                    self._is_complete = found is None and not self._work.under_way
                if isinstance(found, Attempt):
                    await call.write(found.item)
                elif not self._is_complete:
                    await self._change(None if found is None else found - now_s)
            await call.done_writing()

    async def _receive(self, call: _Call) -> None:
        while True:
            response: object = await call.read()
            if not isinstance(response, pb.GenerateBatchResponse):
                self._has_ended = True  # that was the mark of the stream's end
                self._changed.set()
                return
            attempt = self._work.find(response.id)
            if attempt is not None:  # else the server has made it up
                self._take_in(attempt, response)
            self._changed.set()

    def _take_in(self, attempt: Attempt, response: pb.GenerateBatchResponse) -> None:
        error = response.error
        if not response.HasField("error") or not retry.is_transient(error):
            self._results.append(to_record(response, attempt.item.request))
            self._work.finish(response.id)
            self._failures, self._failing_since_s = 0, None
            tokens = response.result.usage.completion_tokens
            self._progress.answered(tokens, is_error=response.HasField("error"))
            return
        told_s = retry.told_by_item(error)
        if retry.is_server_gone(error):
            # Nothing more is sent on this stream; what is under way may still be answered.
            self._pause = _Pause(f"{self._config.target}: {error.message}", told_s)
            self._work.put_back(response.id, time.monotonic())
            return
        attempt.refusals += 1
        delay_s = retry.delay_s(attempt.refusals, told_s, self._rng)
        self._work.put_back(response.id, time.monotonic() + delay_s)
        self._give_up_if_late(error.message)

    async def _change(self, timeout_s: float | None) -> None:
        """Wait for an answer, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    def _give_up_if_late(self, reason: str) -> None:
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if now_s - self._failing_since_s >= self._config.give_up_after_s:
            raise BatchError(
                f"no answer for {self._config.give_up_after_s:g} s (give_up_after_s), the last "
                f"reason: {reason}. What is done is kept; the same command goes on from there."
            )
