"""What do guards and the output log cost? One engine, the same requests, watched and unwatched.

    make bench BENCH=guard ARGS="[MODEL] [--concurrency 32] [--max-tokens 256] [--rounds 5]"

Each round runs every mode once, so that what else the machine does meets all of them alike; the
figures are medians over rounds of a mode's ratio to `off` in the same round. On a machine that does
other things, the process's CPU time for a token tells more than the clock does. Threshold 1 and
min_tokens 1024 keep every text whole: the cost of looking, not of blocking. A model without an
index of its training data is measured without the memorization guard.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from api.config import ServeConfig
from api.engine import load_engine
from api.guard_config import GuardConfig, OutputConfig
from api.guard_fields import GuardFields
from api.guards import Guards
from api.host import EngineHost
from api.metrics import ServingMetrics
from api.service import CompletionCall, CompletionService
from api.side import output_writer
from serving.config import EngineConfig
from serving.engine import Engine
from serving.request import SamplingParams

PROMPT = "It was the best of times, it was the"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One round of one mode: tokens/s of all streams, mean time to a stream's last token, CPU."""

    tokens_per_s: float
    last_token_s: float
    cpu_us_per_token: float


@dataclasses.dataclass(frozen=True)
class Mode:
    """What is done beside generating."""

    name: str
    fields: GuardFields
    is_logged: bool = False


MODES = (
    Mode("off", GuardFields()),
    Mode("safety: annotate", GuardFields(safety={"action": "annotate", "threshold": 1.0})),
    Mode("safety: block", GuardFields(safety={"action": "block", "threshold": 1.0})),
    Mode("memorization: annotate", GuardFields(memorization={"action": "annotate"})),
    Mode(
        "memorization: block",
        GuardFields(memorization={"action": "block", "min_tokens": 1024}),
    ),
    Mode("output log", GuardFields(), is_logged=True),
    Mode("off again", GuardFields()),  # how far two equal runs are apart
)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="talipot-tiny")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scorer", default="embedded")
    uvloop.run(_compare(parser.parse_args()))


async def _compare(options: argparse.Namespace) -> None:
    guards = Guards(GuardConfig(scorer=options.scorer))
    engine = load_engine(options.model, EngineConfig(max_slots=options.concurrency))

    def load() -> Engine:
        guards.load()
        guards.load_index(engine.model_name, engine.tokenizer)
        return engine

    host = EngineHost(load, engine.model_name)
    await host.start()
    with tempfile.TemporaryDirectory() as folder:
        config = ServeConfig(outputs=OutputConfig(data_dir=Path(folder)))
        writer = output_writer(config, guards)
        assert writer is not None
        writer.start()
        service = CompletionService(host, ServingMetrics(host.stats), guards, max_choices=1)
        modes = [mode for mode in MODES if guards.tracer or not mode.fields.memorization]
        figures: dict[str, list[Figure]] = {mode.name: [] for mode in modes}
        for round_ in range(options.rounds + 1):
            for mode in modes if round_ % 2 else modes[::-1]:
                service.outputs = writer if mode.is_logged else None
                figure = await _run(service, mode, options, round_)
                if round_:  # the first round warms up
                    figures[mode.name].append(figure)
        writer.close()
    await host.stop()
    guards.close()
    _print(options, figures)


async def _run(
    service: CompletionService, mode: Mode, options: argparse.Namespace, round_: int
) -> Figure:
    """Run every stream to its end."""

    async def one(index: int) -> tuple[int, float]:
        call = CompletionCall(
            model=service.host.model_name,
            prompts=(PROMPT,),
            params=SamplingParams(
                max_tokens=options.max_tokens,
                seed=round_ * options.concurrency + index,
                ignore_eos=True,
            ),
            guards=mode.fields,
        )
        requests = await service.plan(call, f"{mode.name}-{round_}-{index}")
        tokens = 0
        async for _, delta in service.stream(call, requests):
            tokens += len(delta.token_ids)
        return tokens, time.perf_counter() - start_s

    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    streams = await asyncio.gather(*(one(index) for index in range(options.concurrency)))
    total_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    tokens = sum(count for count, _ in streams)
    return Figure(
        tokens / total_s, statistics.mean(last_s for _, last_s in streams), 1e6 * cpu_s / tokens
    )


def _print(options: argparse.Namespace, figures: dict[str, list[Figure]]) -> None:
    table = Table(
        title=f"{options.model}: {options.concurrency} at once, {options.max_tokens} tokens each"
    )
    for heading in (
        "",
        "tokens/s",
        "of off",
        "lowest",
        "highest",
        "last token, ms more",
        "CPU µs/token",
        "of off",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    off = figures["off"]
    for name, found in figures.items():
        pairs = list(zip(found, off, strict=True))
        ratios = [mine.tokens_per_s / plain.tokens_per_s for mine, plain in pairs]
        later_s = [mine.last_token_s - plain.last_token_s for mine, plain in pairs]
        cpu = [mine.cpu_us_per_token / plain.cpu_us_per_token for mine, plain in pairs]
        shares = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(
            name,
            f"{statistics.median(each.tokens_per_s for each in found):,.0f}",
            *(f"{100 * share:.1f} %" for share in shares),
            f"{1000 * statistics.median(later_s):+.1f}",
            f"{statistics.median(each.cpu_us_per_token for each in found):.0f}",
            f"{100 * statistics.median(cpu):.1f} %",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
