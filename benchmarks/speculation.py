"""Tokens a second with and without speculation, where text repeats itself and where it does not.

    python -m benchmarks.speculation

`copying`: greedy continuations, into which a small model falls in loops. `sampling`: temperature 1,
where guesses fail and speculation must cost nothing. Both engines take turns, round by round.
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


async def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="talipot-tiny")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=4)
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
    print("| text | streams | off, tokens/s | auto, tokens/s | change | drafted | accepted |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in TEMPERATURES:
        for streams in options.streams:
            new_tokens = max(96, min(512, options.tokens // streams))
            before = engines["auto"].stats()
            rates: dict[Speculate, list[float]] = {mode: [] for mode in MODES}
            for number in range(options.rounds):
                for mode in MODES if number % 2 else MODES[::-1]:
                    load = Load(name, streams, new_tokens, seed=number)
                    rates[mode].append(await run(engines[mode], load))
            after = engines["auto"].stats()
            drafted = after.drafted_tokens_total - before.drafted_tokens_total
            accepted = after.accepted_tokens_total - before.accepted_tokens_total
            off, auto = (statistics.median(rates[mode]) for mode in MODES)
            print(
                f"| {name} | {streams} | {off:.0f} | {auto:.0f} | {auto / off - 1:+.1%} "
                f"| {drafted} | {accepted} |",
                flush=True,
            )
    for engine in engines.values():
        await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
