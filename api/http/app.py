"""The FastAPI application: routes, errors and middleware around one engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.config import ServeConfig
from api.engine import forbid_ngrams
from api.guards import Guards
from api.host import EngineHost
from api.http import errors
from api.http.completions import completion_routes
from api.http.generations import generation_routes
from api.http.health import health_routes
from api.http.memorization import memorization_routes
from api.http.middleware import RequestContext, RequireApiKey
from api.http.models import model_routes, token_routes
from api.http.moderations import moderation_routes
from api.http.openapi import describe_api
from api.installation import version
from api.keys import ApiKeys
from api.metrics import ServingMetrics
from api.service import CompletionService
from api.side import output_writer
from serving.engine import Engine

_LOGGER = logging.getLogger("talipot")


def create_app(engine: Engine, config: ServeConfig, guards: Guards | None = None) -> FastAPI:
    """The application over an engine, which it starts and stops with itself.

    `guards` are the configuration's if not given.
    """
    name = config.served_model_name or engine.model_name
    guards = Guards(config.guards) if guards is None else guards

    def load() -> Engine:
        guards.load()
        guards.load_index(engine.model_name, engine.tokenizer)
        forbid_ngrams(engine, guards)
        return engine

    host = EngineHost(load, name)
    metrics = ServingMetrics(host.stats)
    return create_hosted_app(
        CompletionService(
            host, metrics, guards, output_writer(config, guards), max_choices=config.max_choices
        ),
        config,
    )


def create_hosted_app(
    service: CompletionService, config: ServeConfig, on_failure: Callable[[], None] = lambda: None
) -> FastAPI:
    """The application over a service, whose engine loads while the application already answers.

    Args:
        service: Its host is started with the application's lifespan, and stopped with it.
        config: The server's settings.
        on_failure: Called when the engine cannot be started.
    """
    host = service.host

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service.outputs is not None:
            service.outputs.start()
        start = asyncio.create_task(_start(host, on_failure))
        try:
            yield
        finally:
            await host.stop()
            await asyncio.to_thread(service.close)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)

    # /docs with its scripts from here: servers often stand where there is no internet.
    app = FastAPIOffline(
        title="Talipot",
        summary="PaLM-family language models behind OpenAI's completions API.",
        version=version(),
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.max_body_bytes = config.max_body_bytes
    app.state.service = service
    for router in (
        completion_routes(service),
        model_routes(service),
        token_routes(service),
        moderation_routes(service),
        generation_routes(service),
        memorization_routes(service),
        health_routes(service),
    ):
        app.include_router(router)
    errors.install(app)
    if config.api_key_file is not None:
        app.add_middleware(RequireApiKey, keys=ApiKeys.from_file(config.api_key_file))
    app.add_middleware(RequestContext)
    describe_api(app, model_name=host.model_name, requires_key=config.api_key_file is not None)
    return app


async def _start(host: EngineHost, on_failure: Callable[[], None]) -> None:
    try:
        await host.start()
    except Exception:
        _LOGGER.exception("model %s cannot be served", host.model_name)
        on_failure()
