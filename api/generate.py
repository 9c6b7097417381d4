"""`talipot generate`: the engine in this process, its text in the terminal as it comes."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing

from rich.console import Console

from api.config import GenerateConfig
from api.engine import load_watched_engine
from api.guards import Guards
from api.host import EngineHost
from api.metrics import ServingMetrics
from api.service import CompletionCall, CompletionService
from api.verdicts import verdict_lines
from serving.request import Delta, GenerationOutput, collect


def generate_to_terminal(config: GenerateConfig) -> None:
    """Print the continuation of the prompt; progress and verdicts go to standard error.

    Raises:
        TalipotError: The model cannot be loaded, a policy not be kept, or the prompt not be
            continued.
    """
    output = asyncio.run(_generate(config))
    if config.json:
        sys.stdout.write(json.dumps(_to_json(output), ensure_ascii=False) + "\n")
        return
    console = Console(stderr=True, highlight=False)
    for line in verdict_lines(output):
        console.print(line, soft_wrap=True)


async def _generate(config: GenerateConfig) -> GenerationOutput:
    prompt = sys.stdin.read() if config.prompt == "-" else config.prompt
    guards = Guards(config.guards.for_own_policies())
    host = EngineHost(
        lambda: load_watched_engine(config.model, config.engine, guards), config.model
    )
    service = CompletionService(host, ServingMetrics(host.stats), guards, max_choices=1)
    try:
        with Console(stderr=True).status(f"loading and compiling {config.model}"):
            await host.start()
        call = CompletionCall(
            model=host.model_name,
            prompts=(prompt,),
            params=config.sampling,
            echo=config.echo,
            constraint=config.constraint,
        )
        (request,) = await service.plan(call, "generate")
        passed: list[Delta] = []
        async with aclosing(service.guarded(call, request)) as deltas:
            async for delta in deltas:
                passed.append(delta)
                if not config.json:
                    sys.stdout.write(delta.text)
                    sys.stdout.flush()
        if not config.json:
            sys.stdout.write("\n")
        return collect(passed)
    finally:
        service.close()
        await host.stop()


def _to_json(output: GenerationOutput) -> dict[str, object]:
    """As a choice of the HTTP door, with its usage."""
    return {
        "text": output.text,
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
        "usage": {
            "prompt_tokens": output.usage.prompt_tokens,
            "completion_tokens": output.usage.completion_tokens,
        },
        **(output.reports or {}),
    }
