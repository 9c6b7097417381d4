"""The gRPC server: its services, its port, its end."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from api.config import ServeConfig
from api.errors import StartupError
from api.grpc.generation import SERVICE, Generation
from api.grpc.health import Health
from api.grpc.interceptors import RefuseGarbage, RequireApiKey
from api.grpc.talipot.v1 import generation_pb2_grpc
from api.keys import ApiKeys
from api.service import CompletionService

_HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# A client that vanished without a word is found by a ping, and its slots are freed.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class GrpcDoor:
    """gRPC over a service that other doors may use too; belongs to the event loop of `start`."""

    def __init__(self, service: CompletionService, config: ServeConfig) -> None:
        """Nothing listens before `start`.

        Raises:
            ConfigError: The file of API keys cannot be used.
        """
        self._service = service
        self._config = config
        self._interceptors: list[grpc.aio.ServerInterceptor] = [RefuseGarbage()]
        self._keys: ApiKeys | None = None
        if config.api_key_file is not None:
            self._keys = ApiKeys.from_file(config.api_key_file)
            self._interceptors.insert(0, RequireApiKey(self._keys))
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """What it listens on, once started."""

    async def start(self) -> None:
        """Listen; calls are answered from here on, those of the model when it is ready.

        Raises:
            StartupError: The port cannot be had.
        """
        server = grpc.aio.server(
            interceptors=self._interceptors,
            options=(
                # Else a second server would share the port, and each get half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._config.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                *_KEEPALIVE,
            ),
        )
        generation_pb2_grpc.add_GenerationServicer_to_server(
            Generation(self._service, self._config, self._keys), server
        )
        health = Health(self._service.host, (SERVICE,))
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        reflection.enable_server_reflection((SERVICE, _HEALTH, reflection.SERVICE_NAME), server)
        self.port = self._bind(server)
        self._server = server
        await server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; end those that run after `grace_s`."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _bind(self, server: grpc.aio.Server) -> int:
        host, port = self._config.host, self._config.grpc_port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return server.add_insecure_port(address)
        except RuntimeError:
            raise StartupError(
                f"cannot listen on {address} for gRPC: is the port in use? "
                "(--grpc-port 0 picks a free one, --no-grpc does without)"
            ) from None
