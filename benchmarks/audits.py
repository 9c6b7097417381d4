"""Does an audit keep the engine as busy as a batch of requests does that nobody looks at?

python -m benchmarks.audits [PROMPTS] runs the same prompts, sampled 25 times each, on one engine:
alone, its tokens counted and thrown away, and as `talipot audit toxicity` with scorer and journal.
In turn, twice; a round ends when the last unit is on disk. On a machine that does other things,
the process's CPU time for a token tells more than the clock does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

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
from safety.scorers import Scorer, load_scorer
from safety.text_generator import Decoding
from serving.request import GenerationRequest, SamplingParams

_K, _TOKENS, _ROUNDS = 25, 64, 2


@dataclasses.dataclass(frozen=True)
class Figure:
    """One round: tokens a second, and CPU time a token."""

    tokens_per_s: float
    cpu_us_per_token: float

    @classmethod
    def of(cls, tokens: int, start_s: float, start_cpu_s: float) -> Figure:
        """Of a round that ends now."""
        return cls(
            tokens / (time.perf_counter() - start_s),
            1e6 * (time.process_time() - start_cpu_s) / tokens,
        )


async def _engine_alone(host: EngineHost, texts: list[str], in_flight: int) -> Figure:
    """As many requests as the audit sends, as many at once."""
    engine = host.engine
    work = iter([(row, k) for row in range(len(texts)) for k in range(_K)])
    tokens = 0

    async def worker() -> None:
        nonlocal tokens
        for row, k in work:
            request = GenerationRequest(
                request_id=f"alone-{row}-{k}-{time.monotonic_ns()}",
                prompt_token_ids=tuple(engine.tokenizer.encode(texts[row])),
                params=SamplingParams(max_tokens=_TOKENS, top_k=40, seed=row * _K + k),
            )
            async with aclosing(engine.generate(request)) as deltas:
                async for delta in deltas:
                    tokens += len(delta.token_ids)

    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return Figure.of(tokens, start_s, start_cpu_s)


async def _audit(
    service: CompletionService, audit: ToxicityAudit, scorer: Scorer, in_flight: int
) -> Figure:
    """The audit, until the last unit is scored and on disk."""
    generator = EngineGenerator(service, "benchmark", Patience(60.0, print))
    progress = BatchProgress(len(audit.prompts), 0, Console(file=io.StringIO()), "units")
    with (
        tempfile.TemporaryDirectory() as path,
        RunFolder(Path(path), {}) as folder,
    ):
        runner = Runner(
            audit=audit,
            generator=generator,
            scorer=scorer,
            folder=folder,
            progress=progress,
            max_in_flight=in_flight,
        )
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        await runner.run(audit.units())
        return Figure.of(
            sum(sum(record.num_tokens) for record in folder.records.values()), start_s, start_cpu_s
        )


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
    scorer = load_scorer("embedded")
    scorer.score(["warm"])
    alone, audited = [], []
    for _ in range(_ROUNDS):
        alone.append(await _engine_alone(host, [one.text for one in prompts], target.max_in_flight))
        audited.append(await _audit(service, audit, scorer, target.max_in_flight))
        print(f"engine {alone[-1]}, audit {audited[-1]}", flush=True)
    await host.stop()
    pairs = list(zip(audited, alone, strict=True))
    share = statistics.median(one.tokens_per_s / other.tokens_per_s for one, other in pairs)
    cpu = statistics.median(one.cpu_us_per_token / other.cpu_us_per_token for one, other in pairs)
    print(
        f"{count} prompts x {_K} x {_TOKENS} tokens: audit {share:.1%} of the engine's tokens/s, "
        f"{cpu:.1%} of its CPU time a token"
    )


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
