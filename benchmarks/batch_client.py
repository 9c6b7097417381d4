"""Does `talipot batch` keep the engine busy?

The same prompts run twice: on an engine in this process with everything at hand, which is as busy
as an engine can be, and through `talipot batch` and a server, each a process of its own. Two
things are told of the second run: how many of the engine's slots held a request, and its tokens/s
as a share of the first run's. On two cores that the engine keeps busy alone, whatever the client
and the doors compute is missing in the latter, however full the slots are.

    python -m benchmarks.batch_client [--model talipot-tiny] [--prompts 10000] [--new 32]

`--model p50` is a PaLM of 50 M parameters with random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.decode import write_weights
from benchmarks.serving import free_port, wait_until_ready
from benchmarks.soak import WORDS

if TYPE_CHECKING:
    from serving.engine import Engine

_PERIOD_S = 0.5


def main() -> None:
    """Run both, print both rates and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="talipot-tiny")
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args()
    chance = random.Random(0)
    prompts = [" ".join(chance.choices(WORDS, k=20)) for _ in range(options.prompts)]
    tokens = options.prompts * options.new
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model == "p50":
            write_weights(model, Path(folder), gguf=False)
            model = f"{folder}/talipot"
        engine_s = asyncio.run(_on_engine(model, prompts, options.new))
        client_s, in_use = _by_client(model, prompts, options.new)
    print(
        f"{options.model}, {options.prompts:,} prompts of 20 words, {options.new} new tokens each"
    )
    print(f"  engine         {tokens / engine_s:8,.0f} tokens/s")
    print(
        f"  talipot batch  {tokens / client_s:8,.0f} tokens/s, {engine_s / client_s:.1%}; "
        f"{in_use:.1%} of the slots in use"
    )


async def _on_engine(model: str, prompts: list[str], new: int) -> float:
    from api.engine import load_engine
    from serving.config import EngineConfig

    engine = load_engine(model, EngineConfig())
    await engine.start()
    try:
        waiting = iter(enumerate(prompts))
        began = time.perf_counter()
        # Twice as many as slots: one is always there when another ends.
        lanes = 2 * engine.config.max_slots
        await asyncio.gather(*(_lane(engine, waiting, new) for _ in range(lanes)))
        return time.perf_counter() - began
    finally:
        await engine.stop()


async def _lane(engine: Engine, waiting: enumerate[str], new: int) -> None:
    from serving.request import GenerationRequest, SamplingParams

    for index, prompt in waiting:
        request = GenerationRequest(
            request_id=str(index),
            prompt_token_ids=tuple(engine.tokenizer.encode(prompt)),
            params=SamplingParams(max_tokens=new, seed=index, ignore_eos=True),
        )
        async for _ in engine.generate(request):
            pass


def _by_client(model: str, prompts: list[str], new: int) -> tuple[float, float]:
    """Seconds that the client takes, less those of its own start; and the share of slots in use."""
    http, grpc = free_port(), free_port()
    command = [sys.executable, "-m", "api", "serve", "--model", model, "--no-access-log"]
    command += ["--port", str(http), "--grpc-port", str(grpc)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stderr=subprocess.DEVNULL) as server,
    ):
        try:
            wait_until_ready(server, http)
            _batch(Path(folder), "warm", prompts[:16], new, grpc)
            start_s = _batch(Path(folder), "start", prompts[:1], 1, grpc)
            with ThreadPoolExecutor(1) as watcher:
                has_ended = threading.Event()
                watching = watcher.submit(_slots_in_use, http, start_s, has_ended)
                try:
                    seconds = _batch(Path(folder), "all", prompts, new, grpc) - start_s
                finally:
                    has_ended.set()
            return seconds, watching.result()
        finally:
            server.terminate()


def _slots_in_use(port: int, start_s: float, has_ended: threading.Event) -> float:
    """The mean share of slots that hold a request, once the client has started."""
    shares: list[float] = []
    has_ended.wait(start_s + _PERIOD_S)
    while not has_ended.wait(_PERIOD_S):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        shares.append(float(found["talipot_requests_running"]) / float(found["talipot_slots"]))
    return statistics.fmean(shares)


def _batch(folder: Path, name: str, prompts: list[str], new: int, port: int) -> float:
    lines = [
        {"id": str(index), "prompt": prompt, "max_tokens": new, "seed": index, "ignore_eos": True}
        for index, prompt in enumerate(prompts)
    ]
    source = folder / f"{name}.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "api", "batch", "--target", f"127.0.0.1:{port}"]
    began = time.perf_counter()
    out = folder / f"{name}.out.jsonl"
    subprocess.run([*command, str(source), str(out)], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
