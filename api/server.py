"""`talipot serve`: HTTP and gRPC in front of one engine, and what happens on signals.

The first SIGINT or SIGTERM drains: readiness turns 503 and NOT_SERVING, new completions are
refused, running ones may finish until the timeout. Then the doors close and the process exits with
0. The second signal ends running requests at once, also with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Iterator

import uvicorn

from api.config import ServeConfig
from api.engine import load_watched_engine, model_name
from api.grpc.server import GrpcDoor
from api.guards import Guards
from api.host import EngineHost
from api.http.app import create_hosted_app
from api.metrics import ServingMetrics
from api.service import CompletionService
from api.side import output_writer

_LOGGER = logging.getLogger("talipot")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_OK, _EXIT_FAILED = 0, 1
# After the drain only the last bytes of ended responses are on their way.
_CLOSE_TIMEOUT_S = 3


def run_server(config: ServeConfig) -> int:
    """Serve until a signal; returns the process' exit code.

    Raises:
        TalipotError: The server cannot start: no such model, a bad setting, a port in use.
    """
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    server = _Server(config)
    with asyncio.Runner(loop_factory=server.loop_factory) as runner:
        return runner.run(server.run())


class _QuietSignals(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_Server`."""
        yield


class _Server:
    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        # Read before a port opens: a model that is not there is the command's error at once.
        name = config.served_model_name or model_name(config.model)
        guards = Guards(config.guards)
        self._host = EngineHost(
            lambda: load_watched_engine(config.model, config.engine, guards), name
        )
        metrics = ServingMetrics(self._host.stats)
        service = CompletionService(
            self._host,
            metrics,
            guards,
            output_writer(config, guards),
            max_choices=config.max_choices,
        )
        self._grpc = GrpcDoor(service, config) if config.grpc else None
        self._uvicorn = _QuietSignals(
            uvicorn.Config(
                create_hosted_app(service, config, on_failure=self._fail),
                host=config.host,
                port=config.port,
                log_config=None,
                access_log=config.access_log,
                lifespan="on",
                timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
            )
        )
        self.loop_factory = self._uvicorn.config.get_loop_factory()
        self._exit_code = _EXIT_OK
        self._stopping: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, signal.Signals(number))
        async with self._grpc_open():
            await self._uvicorn.serve()  # starts and stops the engine with itself
        return self._exit_code

    @contextlib.asynccontextmanager
    async def _grpc_open(self) -> AsyncIterator[None]:
        if self._grpc is None:
            yield
            return
        await self._grpc.start()
        _LOGGER.info("gRPC listens on %s port %d", self._config.host, self._grpc.port)
        try:
            yield
        finally:
            await self._grpc.stop(_CLOSE_TIMEOUT_S)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping is not None:
            _LOGGER.warning("%s again: ending running requests now", number.name)
            self._stopping.cancel()
            return
        _LOGGER.info(
            "%s: finishing running requests, at most %g s (again to end them now)",
            number.name,
            self._config.drain_timeout_s,
        )
        self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self._host.drain(self._config.drain_timeout_s)
        finally:
            # Ends what still runs, so that its clients get an error instead of a cut connection.
            await self._host.stop()
            self._uvicorn.should_exit = True

    def _fail(self) -> None:
        self._exit_code = _EXIT_FAILED
        self._uvicorn.should_exit = True
