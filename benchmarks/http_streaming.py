"""How much of the engine's speed does HTTP streaming deliver?

Runs the same requests at the same concurrency straight on the engine and through the HTTP server,
alternating, on one engine in one process; the HTTP client is a process of its own that does nothing
but read. Prints tokens/s of both and their ratio.

    python benchmarks/http_streaming.py [MODEL] [--concurrency 16] [--max-tokens 256] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import time

import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table

PROMPT = "It was the best of times, it was the"


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="talipot-tiny")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        uvloop.run(_be_client(options))
    else:
        uvloop.run(_compare(options))


async def _compare(options: argparse.Namespace) -> None:
    from api.config import ServeConfig
    from api.engine import load_engine
    from api.http.app import create_app
    from serving.config import EngineConfig

    # Before JAX starts its threads, across which a fork would not be safe.
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, options.model, "--client"),
        *("--concurrency", str(options.concurrency), "--max-tokens", str(options.max_tokens)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    engine = load_engine(options.model, EngineConfig(max_slots=options.concurrency))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = create_app(engine, ServeConfig())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    host = app.state.service.host
    while not (server.started and host.phase == "ready"):
        if serving.done() or host.phase == "failed":
            sys.exit("the server did not become ready")
        await asyncio.sleep(0.01)
    url_parts = f"{listener.getsockname()[1]} {host.model_name}\n".encode()
    raw, http = [], []
    for round_ in range(options.rounds + 1):
        raw_speed = await _raw_tokens_per_s(engine, options)
        http_speed = await _ask(client, url_parts)
        if round_:  # the first round warms up
            raw.append(raw_speed)
            http.append(http_speed)
    client.stdin.close()  # type: ignore[union-attr]
    await client.wait()
    server.should_exit = True
    await serving  # its lifespan stops the engine
    _print(options, raw, http)


async def _raw_tokens_per_s(engine: object, options: argparse.Namespace) -> float:
    from serving.request import GenerationRequest, SamplingParams

    prompt = tuple(engine.tokenizer.encode(PROMPT))  # type: ignore[attr-defined]

    async def one(index: int) -> int:
        request = GenerationRequest(
            request_id=f"raw-{index}",
            prompt_token_ids=prompt,
            params=SamplingParams(max_tokens=options.max_tokens, seed=index, ignore_eos=True),
        )
        tokens = 0
        async for delta in engine.generate(request):  # type: ignore[attr-defined]
            tokens += len(delta.token_ids)
        return tokens

    start_s = time.perf_counter()
    tokens = await asyncio.gather(*(one(index) for index in range(options.concurrency)))
    return sum(tokens) / (time.perf_counter() - start_s)


async def _ask(client: asyncio.subprocess.Process, port_and_model: bytes) -> float:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(port_and_model)
    await client.stdin.drain()
    return float(await client.stdout.readline())


async def _be_client(options: argparse.Namespace) -> None:
    """For each "PORT MODEL" on standard input, run one round and print its tokens/s."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        port, model = line.split()
        start_s = time.perf_counter()
        streams = (_stream(options, int(port), model, i) for i in range(options.concurrency))
        tokens = await asyncio.gather(*streams)
        print(sum(tokens) / (time.perf_counter() - start_s), flush=True)


async def _stream(options: argparse.Namespace, port: int, model: str, index: int) -> int:
    """Read one stream to its end; returns the completion tokens that its usage reports."""
    body = json.dumps(
        {
            "model": model,
            "prompt": PROMPT,
            "max_tokens": options.max_tokens,
            "seed": index,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    received = bytearray()
    while not received.endswith(b"0\r\n\r\n"):
        chunk = await reader.read(65536)
        if not chunk:
            raise ConnectionError(received.decode())
        received += chunk
    writer.close()
    usage = received[received.rindex(b'"completion_tokens":') + 20 :]
    return int(usage[: usage.index(b",")])


def _print(options: argparse.Namespace, raw: list[float], http: list[float]) -> None:
    table = Table(
        title=f"{options.model}: {options.concurrency} at once, {options.max_tokens} tokens each"
    )
    for heading in ("", "tokens/s, median", "lowest", "highest"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in (("engine", raw), ("HTTP streaming", http)):
        table.add_row(
            name, *(f"{v:,.0f}" for v in (statistics.median(values), min(values), max(values)))
        )
    ratios = [h / r for h, r in zip(http, raw, strict=True)]
    figures = (statistics.median(ratios), min(ratios), max(ratios))
    table.add_row("HTTP / engine", *(f"{100 * value:.1f} %" for value in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
