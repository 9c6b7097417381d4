"""`GenerateBatch`: many requests over one stream, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc.aio

from api.grpc.errors import to_item_error
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
        """
        async with asyncio.TaskGroup() as group:
            while True:
                await self._free.acquire()
                request: object = await self._context.read()
                if not isinstance(request, pb.GenerateBatchRequest):
                    return  # the mark of the stream's end
                group.create_task(self._run_one(request))

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
