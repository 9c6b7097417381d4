"""Ten minutes at twice the capacity: does everyone get an answer, and is nothing left behind?

Runs `talipot serve` in a process of its own and sends completions at random times, at twice the
rate that it was just seen to finish; some clients hang up, some send nonsense. Every half minute it
notes the server's resident memory. At the end, when the server is idle, no page may be held and no
request run. Exits with 1 if a request had no proper answer, a page leaked or memory grew.

    python -m benchmarks.soak [--minutes 10] [--overload 2] [--aborts 0.1] [--bad 0.05]
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import random
import subprocess
import sys
import time
import urllib.request
from typing import Any

import psutil

from benchmarks.http_client import Answer, complete
from benchmarks.serving import free_port, wait_until_ready

MODEL = "talipot-tiny"
WORDS = ("the", "ship", "a", "storm", "and", "her", "captain", "said", "of", "old", "night", "she")
NONSENSE: tuple[dict[str, Any], ...] = (
    {"model": MODEL, "prompt": "x", "max_tokens": -1},
    {"model": MODEL, "prompt": "x", "temperature": "hot"},
    {"model": MODEL, "prompt": 7},
    {"model": MODEL, "prompt": "x", "top_p": 2},
    {"prompt": "x", "model": "no-such-model"},
    {"model": MODEL, "prompt": "x", "max_tokens": 10**9},
    {"model": MODEL, "prompt": "x", "unknown_field": 1},
)
# Memory that a server may gain over a run once it has seen every kind of request.
MAX_GROWTH = 0.05


@dataclasses.dataclass
class Tally:
    """What happened so far."""

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)
    tokens: int = 0
    resident: list[float] = dataclasses.field(default_factory=list)


def main() -> None:
    """Start a server, load it, judge it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--overload", type=float, default=2, help="of its capacity")
    parser.add_argument("--aborts", type=float, default=0.1, help="share that hangs up")
    parser.add_argument("--bad", type=float, default=0.05, help="share that is nonsense")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "api", "serve", "--port", str(port), "--no-grpc"]
    command += ["--no-access-log", "--fail-on-recompilation", "--max-queued-requests", "32"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_ready(server, port)
            tally = asyncio.run(_soak(server.pid, port, options))
        finally:
            server.terminate()
    sys.exit(1 if _report(tally) else 0)


async def _soak(pid: int, port: int, options: argparse.Namespace) -> Tally:
    chance = random.Random(options.seed)
    capacity = await _capacity(port, chance)
    rate = options.overload * capacity
    print(f"capacity {capacity:.1f} requests/s; {rate:.1f} requests/s for {options.minutes} min")
    tally = Tally()
    memory = psutil.Process(pid)
    running: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    due = began
    next_note = began + 30
    while time.monotonic() < began + 60 * options.minutes:
        task = asyncio.create_task(_one(port, chance, options, tally))
        running.add(task)
        task.add_done_callback(running.discard)
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if time.monotonic() >= next_note:
            next_note += 30
            tally.resident.append(memory.memory_info().rss / 2**20)
            held = _metrics(port)["talipot_kv_tokens_used"]
            print(
                f"{time.monotonic() - began:5.0f} s  {tally.resident[-1]:7.1f} MiB  "
                f"{len(running):4d} open  {held:6.0f} positions  {dict(tally.outcomes)}",
                flush=True,
            )
    if running:
        await asyncio.wait(running, timeout=120)
    for _ in running:
        tally.faults.append("no answer two minutes after the end")
    await asyncio.sleep(1)
    _check_idle(_metrics(port), tally)
    return tally


async def _capacity(port: int, chance: random.Random) -> float:
    """Requests a second that it finishes with as many clients as slots."""

    async def client() -> int:
        finished = 0
        while time.monotonic() < until:
            answer = await complete(port, _request(chance))
            finished += answer is not None and answer.status == 200
        return finished

    began = time.monotonic()
    until = began + 10
    finished = sum(await asyncio.gather(*(client() for _ in range(16))))
    if not finished:
        sys.exit("the server finished no request")
    return finished / (time.monotonic() - began)


def _request(chance: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": MODEL,
        "prompt": " ".join(chance.choices(WORDS, k=chance.choice((3, 10, 50, 300)))),
        "max_tokens": chance.choice((1, 16, 64, 256)),
        "temperature": chance.choice((0.0, 1.0)),
        "stream": chance.random() < 0.5,
    }
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    return body


async def _one(port: int, chance: random.Random, options: argparse.Namespace, tally: Tally) -> None:
    kind = chance.random()
    if kind < options.bad:
        answer = await complete(port, chance.choice(NONSENSE))
        _expect(tally, "refused", answer, {400, 404, 422})
    elif kind < options.bad + options.aborts:
        answer = await complete(port, _request(chance), leave_after_s=chance.uniform(0, 0.5))
        if answer is None:
            tally.outcomes["hung up"] += 1
        else:
            _judge(tally, answer)
    else:
        answer = await complete(port, _request(chance))
        assert answer is not None
        _judge(tally, answer)


def _judge(tally: Tally, answer: Answer) -> None:
    if answer.status == 429:
        _expect(tally, "429", answer, {429})
        if answer.retry_after is None:
            tally.faults.append("429 without Retry-After")
    else:
        tally.tokens += answer.tokens
        _expect(tally, "finished", answer, {200})
        if answer.tokens == 0:
            tally.faults.append("an answer without usage")


def _expect(tally: Tally, outcome: str, answer: Answer | None, statuses: set[int]) -> None:
    assert answer is not None
    tally.outcomes[outcome] += 1
    if answer.status not in statuses or not answer.is_whole:
        tally.faults.append(f"{outcome}: {answer}")


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _check_idle(metrics: dict[str, float], tally: Tally) -> None:
    for name in ("talipot_kv_tokens_used", "talipot_requests_running", "talipot_queue_depth"):
        if metrics[name]:
            tally.faults.append(f"{name} is {metrics[name]:.0f} when idle")
    if metrics["talipot_recompilations_after_ready_total"]:
        tally.faults.append("programs were compiled while it served")


def _report(tally: Tally) -> list[str]:
    settled = tally.resident[len(tally.resident) // 4 :]
    if len(settled) > 1:
        growth = settled[-1] / settled[0] - 1
        print(f"memory {settled[0]:.1f} to {settled[-1]:.1f} MiB ({growth:+.1%})")
        if growth > MAX_GROWTH:
            tally.faults.append(f"memory grew by {growth:.1%}")
    print(f"{tally.tokens:,} tokens; {dict(tally.outcomes)}; {len(tally.faults)} faults")
    for fault, count in collections.Counter(tally.faults).most_common(10):
        print(f"  {count} x {fault}")
    return tally.faults


if __name__ == "__main__":
    main()
