"""Models for audits: the engine in this process, Talipot's gRPC door, any OpenAI-like endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from api.audit.config import TargetConfig
from api.audit.generators.found import FoundModel
from api.audit.generators.patience import Patience
from api.config import DEFAULT_MODEL
from safety.text_generator import TextGenerator


@contextlib.asynccontextmanager
async def find_model(
    config: TargetConfig, note: Callable[[str], None]
) -> AsyncIterator[FoundModel]:
    """The model that the configuration names; it is loaded, or waited for, when it is needed.

    Raises:
        AuditError: The endpoint is not there for too long, or serves another model.
        TalipotError: The model cannot be loaded here.
    """
    patience = Patience(config.give_up_after_s, note)
    if config.target is None:
        from api.audit.generators.engine import find_engine

        yield await find_engine(config.model or DEFAULT_MODEL, config.engine, patience, note)
    elif config.target.startswith("grpc://"):
        from api.audit.generators.grpc_server import find_grpc

        host = config.target.removeprefix("grpc://")
        async with find_grpc(host, config.model, config.api_key, patience) as found:
            yield found
    else:
        from api.audit.generators.openai_server import find_openai

        async with find_openai(
            config.target, config.model, config.api_key, config.max_in_flight, patience
        ) as found:
            yield found


@contextlib.asynccontextmanager
async def open_generator(
    config: TargetConfig, note: Callable[[str], None]
) -> AsyncIterator[TextGenerator]:
    """The model that the configuration names, ready to be asked; raises what `find_model` does."""
    async with find_model(config, note) as found, found.ready() as generator:
        yield generator
