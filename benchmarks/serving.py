"""Talipot's server beside llama.cpp's own, on the same weights and the same load.

Clients stream completions one after the other, each from a prompt of random tokens, no two alike.
Both servers run alone, in turn. Prints tokens/s, the time to the first token and the time between
tokens. llama.cpp's server is built from its source (`cmake --build build --target llama-server`):

    python -m benchmarks.serving --llama-server build/bin/llama-server [--clients 32]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decode import FILE_TYPES, write_weights
from benchmarks.http_client import Answer, complete


def main() -> None:
    """Measure every server and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="p50")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--forms", nargs="+", default=["q8_0", "bf16"], help="of llama.cpp")
    options = parser.parse_args()
    print(f"{options.model}: {options.clients} clients, {options.requests} requests each,")
    print(f"prompts of {options.prompt} tokens, {options.new} new ones\n")
    print("| server | tokens/s | TTFT p50 | TTFT p99 | TPOT p50 | TPOT p99 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocab_size = write_weights(options.model, folder, gguf=options.llama_server is not None)
        port = free_port()
        for kind in ("int8", "bfloat16"):
            command = _talipot(folder, options, port, kind)
            _measure(f"Talipot {kind}", command, port, vocab_size, options)
        for form in options.forms if options.llama_server else ():
            path = _quantized(options.llama_server, folder, form)
            command = _llama(options, port, path)
            _measure(f"llama-server {form}", command, port, vocab_size, options)


def _talipot(folder: Path, options: argparse.Namespace, port: int, kind: str) -> list[str]:
    quantize = "int8" if kind == "int8" else "none"
    dtype = "float32" if kind == "int8" else "bfloat16"
    return [
        *(sys.executable, "-m", "api", "serve", "--model", str(folder / "talipot")),
        *("--served-model-name", options.model),
        *("--port", str(port), "--no-grpc", "--max-slots", str(options.clients)),
        *("--quantize", quantize, "--dtype", dtype, "--no-access-log"),
    ]


def _llama(options: argparse.Namespace, port: int, path: Path) -> list[str]:
    context = options.clients * (options.prompt + options.new + 16)
    return [
        *(str(options.llama_server), "-m", str(path), "--port", str(port), "-t", "2", "-tb", "2"),
        *("-np", str(options.clients), "-c", str(context), "--no-webui", "--log-disable"),
    ]


def _quantized(server: Path, folder: Path, form: str) -> Path:
    path = folder / f"{form}.gguf"
    if form == "f32" or path.exists():
        return path
    tool = server.with_name("llama-quantize")
    command = [str(tool), str(folder / "f32.gguf"), str(path), str(FILE_TYPES[form])]
    subprocess.run(command, check=True, capture_output=True)
    return path


def _measure(
    name: str, command: list[str], port: int, vocab_size: int, options: argparse.Namespace
) -> None:
    environment = {**os.environ, "TALIPOT_ACCESS_LOG": "false"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until_ready(server, port)
            asyncio.run(_load(port, vocab_size, options, requests=1))
            began = time.perf_counter()
            answers = asyncio.run(_load(port, vocab_size, options, options.requests))
            _print(name, answers, time.perf_counter() - began)
        finally:
            server.terminate()


def _print(name: str, answers: list[Answer], seconds: float) -> None:
    bad = [answer for answer in answers if answer.status != 200 or not answer.is_whole]
    if bad:
        sys.exit(f"{name}: {len(bad)} requests failed, the first with {bad[0]}")
    rate = sum(answer.tokens for answer in answers) / seconds
    ttft = np.percentile([answer.ttft_s for answer in answers], [50, 99]) * 1e3
    tpot = np.percentile([answer.tpot_s for answer in answers], [50, 99]) * 1e3
    times = " | ".join(f"{value:,.1f} ms" for value in (*ttft, *tpot))
    print(f"| {name} | {rate:,.0f} | {times} |", flush=True)


async def _load(
    port: int, vocab_size: int, options: argparse.Namespace, requests: int
) -> list[Answer]:
    generator = np.random.default_rng()

    async def client() -> list[Answer]:
        answers = []
        for _ in range(requests):
            body: dict[str, Any] = {
                "model": options.model,
                "prompt": generator.integers(3, vocab_size, options.prompt).tolist(),
                "max_tokens": options.new,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            answer = await complete(port, body)
            assert answer is not None
            answers.append(answer)
        return answers

    groups = await asyncio.gather(*(client() for _ in range(options.clients)))
    return [answer for group in groups for answer in group]


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    for path in ("/health/ready", "/health"):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if server.poll() is not None:
                sys.exit(f"the server ended with {server.returncode} before it was ready")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}"):
                    return
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    break  # the other server's path
                time.sleep(0.1)
            except urllib.error.URLError:
                time.sleep(0.1)  # not listening yet
    sys.exit("the server did not become ready in two minutes")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
