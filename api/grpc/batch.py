"""`GenerateBatch`: many requests over one stream, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc.aio
from google.protobuf.message import DecodeError

from api.grpc.errors import to_item_error
from api.grpc.interceptors import no_message
from api.grpc.talipot.v1 import generation_pb2 as pb
from serving.errors import RequestError

Answer: TypeAlias = Callable[[pb.GenerateRequest], Awaitable[pb.GenerateResult]]
BatchContext: TypeAlias = (
    "grpc.aio.ServicerContext[pb.GenerateBatchRequest, pb.GenerateBatchResponse]"
)


class BatchStream:
    """One client's stream.

    A request counts as in flight from before it is read until its result was handed to the
    transport. So neither a client that writes without end nor one that does not read makes the
    server hold more than `max_in_flight` requests and results.
    """

    def __init__(self, context: BatchContext, answer: Answer, *, max_in_flight: int) -> None:
        """`answer` runs one request to its end."""
        self._context = context
        self._answer = answer
        self._free = asyncio.Semaphore(max_in_flight)
        self._writing = asyncio.Lock()  # gRPC takes one message at a time

    async def run(self) -> None:
        """Answer until the client has no more requests and every result is out.

        Cancelling ends what is in flight.

        Raises:
            RequestError: The client sent something that is no request; all that is in flight ends.
        """
        try:
            async with asyncio.TaskGroup() as group:
                while (item := await self._next()) is not None:
                    group.create_task(self._run_one(item))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _next(self) -> pb.GenerateBatchRequest | None:
        """The next request when there is room for it; None after the last."""
        await self._free.acquire()
        try:
            item: object = await self._context.read()
        except DecodeError:
            raise no_message() from None
        return item if isinstance(item, pb.GenerateBatchRequest) else None

    async def _run_one(self, item: pb.GenerateBatchRequest) -> None:
        response = pb.GenerateBatchResponse(id=item.id)
        try:
            if not item.id:
                raise RequestError("id='' must hold at least 1 character", param="id")
            response.result.CopyFrom(await self._answer(item.request))
        except Exception as error:  # noqa: BLE001 (the boundary of a request: its caller is told)
            response.error.CopyFrom(to_item_error(error))
        async with self._writing:
            await self._context.write(response)
        self._free.release()
