"""Tokens a second with and without speculation, where text repeats itself and where it does not.

    python -m benchmarks.speculation
    python -m benchmarks.speculation --texts sampling --streams 32 --rounds 16 --tokens 8192

`copying`: greedy continuations, into which a small model falls in loops. `sampling`: temperature 1,
where guesses fail and speculation must cost nothing. Both engines take turns, round by round, and
each round compares the two on the same requests: a machine's own ups and downs are in both.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import time

from model.checkpoint import load_pretrained, resolve_model
from serving.config import EngineConfig, Speculate
from serving.engine import Engine
from serving.request import GenerationRequest, SamplingParams, collect

MODES: tuple[Speculate, ...] = ("off", "auto")
PROMPTS = (
    "It was the best of times, it was the worst of times, ",
    "The captain said that the ship would leave in the morning. The captain said that ",
    "One, two, three, four, five. One, two, three, four, five. One, two, ",
    "Dear Sir, I have the honour to inform you that ",
)
TEMPERATURES = {"copying": 0.0, "sampling": 1.0}


@dataclasses.dataclass(frozen=True)
class Load:
    """What is asked of an engine at once."""

    name: str
    streams: int
    new_tokens: int
    seed: int

    def requests(self, engine: Engine) -> list[GenerationRequest]:
        """A request for each stream; no two prompts begin alike."""
        return [
            GenerationRequest(
                request_id=f"{self.name}-{self.seed}-{index}",
                prompt_token_ids=tuple(
                    engine.tokenizer.encode(f"{index + self.streams * self.seed}. ")
                    + engine.tokenizer.encode(PROMPTS[index % len(PROMPTS)])
                ),
                params=SamplingParams(
                    max_tokens=self.new_tokens,
                    temperature=TEMPERATURES[self.name],
                    seed=self.seed + index,
                    ignore_eos=True,
                ),
            )
            for index in range(self.streams)
        ]


async def run(engine: Engine, load: Load) -> float:
    """Tokens a second."""

    async def one(request: GenerationRequest) -> int:
        return len(collect([delta async for delta in engine.generate(request)]).token_ids)

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(one(each) for each in load.requests(engine))))
    return tokens / (time.perf_counter() - started)


def quartiles(values: list[float]) -> list[float]:
    """The lower one, the median, the upper one; of at least two values."""
    return statistics.quantiles(values, n=4, method="inclusive")


def show(three: list[float], form: str) -> str:
    """Quartiles as text."""
    lower, median, upper = (format(value, form) for value in three)
    return f"{median} ({lower} to {upper})"


async def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="talipot-tiny")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--texts", nargs="+", choices=TEMPERATURES, default=list(TEMPERATURES))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=1536, help="a round's, over all streams")
    options = parser.parse_args()
    pretrained = load_pretrained(resolve_model(options.model), dtype="float32")
    engines = {
        mode: Engine.from_pretrained(
            pretrained, EngineConfig(max_slots=max(options.streams), speculate=mode)
        )
        for mode in MODES
    }
    for engine in engines.values():
        await engine.start()
    print("tokens/s and their change from round to round: median (quartiles)")
    print("| text | streams | off | auto | change | drafted | accepted |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.texts:
        for streams in options.streams:
            new_tokens = max(96, min(512, options.tokens // streams))
            before = engines["auto"].stats()
            rates: dict[Speculate, list[float]] = {mode: [] for mode in MODES}
            for number in range(options.rounds + 1):
                for mode in MODES if number % 2 else MODES[::-1]:
                    load = Load(name, streams, new_tokens, seed=number)
                    rate = await run(engines[mode], load)
                    if number:  # the first round warms up
                        rates[mode].append(rate)
            after = engines["auto"].stats()
            drafted = after.drafted_tokens_total - before.drafted_tokens_total
            accepted = after.accepted_tokens_total - before.accepted_tokens_total
            off, auto = (quartiles(rates[mode]) for mode in MODES)
            changes = quartiles(
                [new / old - 1 for old, new in zip(rates["off"], rates["auto"], strict=True)]
            )
            print(
                f"| {name} | {streams} | {show(off, ',.0f')} | {show(auto, ',.0f')} "
                f"| {show(changes, '+.1%')} | {drafted} | {accepted} |",
                flush=True,
            )
    for engine in engines.values():
        await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
