"""`grpc.health.v1.Health`: SERVING exactly while requests are admitted."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.host import EngineHost

_POLL_S = 0.2
_Response: TypeAlias = health_pb2.HealthCheckResponse
_Context: TypeAlias = "grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, Any]"


class Health(health_pb2_grpc.HealthServicer):
    """Reads the host's phase when asked, so that it never lags behind.

    The library's own servicer keeps a copy of the status that someone would have to update, also
    when the engine fails on a thread of its own.
    """

    def __init__(self, host: EngineHost, services: tuple[str, ...]) -> None:
        """Answer for `services` and for the server as a whole, which has the empty name."""
        self._host = host
        self._services = ("", *services)

    async def Check(  # noqa: N802 (the names in the proto)
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> _Response:
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"service={request.service[:80]!r} is not served here",
            )
        return _Response(status=self._status(request.service))

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> None:
        """The status now and whenever it changes, until the server has stopped."""
        last: int | None = None
        while True:
            status = self._status(request.service)
            if status != last:
                await context.write(_Response(status=status))
                last = status
            if self._host.phase == "stopped":
                return
            await asyncio.sleep(_POLL_S)

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if self._host.phase == "ready" else _Response.NOT_SERVING
