"""Does an audit keep the engine as busy as requests whose texts nobody looks at?

python -m benchmarks.audits [PROMPTS] samples the same prompts 25 times each on one engine, in ways
that add one thing after another:

- engine: requests as an audit sends them, their tokens counted and thrown away;
- service: the audit's generator above them, which collects texts;
- journal: `talipot audit toxicity` with a scorer that scores nothing: runner, sentences, journal;
- audit: the same with the embedded scorer.

All ways in turn, in another order each round; a round ends when the last unit is on disk. The table
has the median over rounds of each way's share of that round's engine. On a machine that does other
things the process's CPU time for a token tells more than the clock does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from api.audit.config import TargetConfig
from api.audit.folder import RunFolder
from api.audit.generators.engine import EngineGenerator
from api.audit.generators.patience import Patience
from api.audit.runner import Runner
from api.batch.progress import BatchProgress
from api.config import DEFAULT_MODEL
from api.engine import load_engine
from api.guards import Guards
from api.host import EngineHost
from api.metrics import ServingMetrics
from api.service import CompletionService
from safety.audits import loading
from safety.audits.toxicity import ToxicityAudit
from safety.audits.toxicity_data import load_prompts
from safety.audits.units import Generate
from safety.scorers import Scorer, load_scorer
from safety.scorers.base import TOXICITY_LABELS
from safety.text_generator import Decoding
from serving.request import GenerationRequest, SamplingParams

_K, _TOKENS, _ROUNDS = 25, 64, 5


@dataclasses.dataclass(frozen=True)
class Figure:
    """One round: tokens a second, and CPU time a token."""

    tokens_per_s: float
    cpu_us_per_token: float


class NoScorer:
    """Scores nothing, at no cost."""

    name = "none"
    version = "1"
    labels = TOXICITY_LABELS

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros((len(texts), len(self.labels)), np.float32)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all ways share; each returns the tokens that it generated."""

    service: CompletionService
    audit: ToxicityAudit
    in_flight: int

    async def engine(self) -> int:
        """As many requests as the audit sends, as many at once."""
        engine = self.service.host.engine
        work = iter([(row, k) for row in range(len(self.audit.prompts)) for k in range(_K)])
        tokens = 0

        async def worker() -> None:
            nonlocal tokens
            for row, k in work:
                prompt = engine.tokenizer.encode(self.audit.prompts[row].text)
                request = GenerationRequest(
                    request_id=f"alone-{row}-{k}-{time.monotonic_ns()}",
                    prompt_token_ids=tuple(prompt),
                    params=SamplingParams(max_tokens=_TOKENS, top_k=40, seed=row * _K + k),
                )
                async with aclosing(engine.generate(request)) as deltas:
                    async for delta in deltas:
                        tokens += len(delta.token_ids)

        await asyncio.gather(*(worker() for _ in range(self.in_flight)))
        return tokens

    async def generator(self) -> int:
        """Whole units through the service, their texts thrown away."""
        generator = self._generator()
        work = iter([unit.call for unit in self.audit.units()])
        tokens = 0

        async def worker() -> None:
            nonlocal tokens
            for call in work:
                assert isinstance(call, Generate)
                (continuations,) = await generator.generate((call.prompt,), call.params)
                tokens += sum(one.num_tokens for one in continuations)

        await asyncio.gather(*(worker() for _ in range(-(-self.in_flight // _K))))
        return tokens

    async def run(self, scorer: Scorer) -> int:
        """The audit, until the last unit is scored and on disk."""
        progress = BatchProgress(len(self.audit.prompts), 0, Console(file=io.StringIO()), "units")
        with tempfile.TemporaryDirectory() as path, RunFolder(Path(path), {}) as folder:
            runner = Runner(
                audit=self.audit,
                generator=self._generator(),
                scorer=scorer,
                folder=folder,
                progress=progress,
                max_in_flight=self.in_flight,
            )
            await runner.run(self.audit.units())
            return sum(sum(record.num_tokens) for record in folder.records.values())

    def _generator(self) -> EngineGenerator:
        return EngineGenerator(self.service, "benchmark", Patience(60.0, print))


async def _timed(way: Callable[[], Awaitable[int]]) -> Figure:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    tokens = await way()
    elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return Figure(tokens / elapsed_s, 1e6 * cpu_s / tokens)


async def _main(count: int) -> None:
    prompts = load_prompts(loading.shipped("toxicity_prompts.jsonl"))
    prompts = [prompts[index % len(prompts)] for index in range(count)]
    audit = ToxicityAudit(
        prompts=tuple(prompts), data="benchmark", k=_K, decoding=Decoding(max_tokens=_TOKENS)
    )
    target = TargetConfig()
    host = EngineHost(lambda: load_engine(DEFAULT_MODEL, target.engine), DEFAULT_MODEL)
    await host.start()
    service = CompletionService(host, ServingMetrics(host.stats), Guards.off(), max_choices=128)
    bench = Bench(service, audit, target.max_in_flight)
    scorer = load_scorer("embedded")
    ways: dict[str, Callable[[], Awaitable[int]]] = {
        "engine": bench.engine,
        "service": bench.generator,
        "journal": lambda: bench.run(NoScorer()),
        "audit": lambda: bench.run(scorer),
    }
    await ways["audit"]()  # warm
    rounds: list[dict[str, Figure]] = []
    names = list(ways)
    for number in range(_ROUNDS):
        order = names[number % len(names) :] + names[: number % len(names)]
        rounds.append({name: await _timed(ways[name]) for name in order})
    await host.stop()
    print(f"{count} prompts x {_K} x {_TOKENS} tokens, medians of {_ROUNDS} rounds")
    print(f"{'':8} {'tokens/s':>9} {'of engine':>18} {'CPU us/token':>13}")
    for name in names:
        figures = [each[name] for each in rounds]
        shares = [each[name].tokens_per_s / each["engine"].tokens_per_s for each in rounds]
        spread = f"({min(shares):.1%} to {max(shares):.1%})"
        print(
            f"{name:8} {statistics.median(one.tokens_per_s for one in figures):9.0f} "
            f"{statistics.median(shares):7.1%} {spread} "
            f"{statistics.median(one.cpu_us_per_token for one in figures):8.1f}"
        )


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
