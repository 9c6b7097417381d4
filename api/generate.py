"""`talipot generate`: the engine in this process, its text in the terminal as it comes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from rich.console import Console

from api.config import GenerateConfig
from api.engine import load_engine
from api.guards import Guards
from api.host import EngineHost
from api.metrics import ServingMetrics
from api.service import CompletionCall, CompletionService


def generate_to_terminal(config: GenerateConfig) -> None:
    """Print the continuation of the prompt; progress goes to standard error.

    Raises:
        TalipotError: The model cannot be loaded or the prompt not be continued.
    """
    asyncio.run(_generate(config))


async def _generate(config: GenerateConfig) -> None:
    prompt = sys.stdin.read() if config.prompt == "-" else config.prompt
    host = EngineHost(lambda: load_engine(config.model, config.engine), config.model)
    try:
        with Console(stderr=True).status(f"loading and compiling {config.model}"):
            await host.start()
        service = CompletionService(host, ServingMetrics(host.stats), Guards.off(), max_choices=1)
        call = CompletionCall(
            model=host.model_name,
            prompts=(prompt,),
            params=config.sampling,
            echo=config.echo,
            constraint=config.constraint,
        )
        (request,) = await service.plan(call, "generate")
        async with aclosing(service.deltas(request)) as deltas:
            async for delta in deltas:
                sys.stdout.write(delta.text)
                sys.stdout.flush()
        sys.stdout.write("\n")
    finally:
        await host.stop()
