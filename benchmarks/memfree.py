"""What does avoiding training n-grams cost, and how often does it change a token?

    python -m benchmarks.memfree INDEX [MODEL] [--concurrency 32] [--max-tokens 256] [--rounds 5]
        [--plain] [--corpus CORPUS…]

INDEX is one of `talipot index build` (with its default n-grams), or an embedded model's name. One
engine serves the same requests with and without `memorization.action="avoid"`, turn by turn, so
that what else the machine does meets both alike; `--plain` adds an engine without a filter, which
shows what having one costs those that do not ask. Figures are medians over rounds of the ratio to
`off` in the same round; processor time is of all threads, and steadier on a machine that has other
work. With CORPUS, prompts are the openings of its documents.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from api.engine import forbid_ngrams, load_engine
from api.guard_config import GuardConfig
from api.guards import Guards
from memorization.corpus import corpus_files, read_corpus
from memorization.ngram_filter import NgramFilter, contains
from memorization.rolling_hash import kgram_hashes
from serving.config import EngineConfig
from serving.engine import Engine
from serving.request import GenerationRequest, SamplingParams

PROMPT = "It was the best of times, it was the"
_PROMPT_TOKENS = 16
_RANDOM_NGRAMS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Mode:
    """An engine, and whether its requests avoid n-grams."""

    name: str
    engine: Engine
    avoids: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Figures:
    """Of one run: tokens per second of all streams, processor time of a token, forbidden share."""

    speed: float
    cpu_s: float
    forbidden: float


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index")
    parser.add_argument("model", nargs="?", default="talipot-tiny")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[])
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true")
    uvloop.run(_compare(parser.parse_args()))


async def _compare(options: argparse.Namespace) -> None:
    config = EngineConfig(
        max_slots=options.concurrency,
        max_model_len=_PROMPT_TOKENS + options.max_tokens,
        prefill_buckets=(_PROMPT_TOKENS,),
    )
    filtered = load_engine(options.model, config)
    guards = Guards(GuardConfig(scorer="none", memorization_index=options.index))
    guards.load_index(filtered.model_name, filtered.tokenizer)
    if guards.ngrams is None:
        raise SystemExit(f"{options.index} has no filter of n-grams")
    forbid_ngrams(filtered, guards)
    _print_filter(guards.ngrams, filtered.tokenizer.vocab_size)
    engines = [filtered]
    modes = [
        Mode("off", filtered, avoids=False),
        Mode("avoid", filtered, avoids=True),
        Mode("off again", filtered, avoids=False),  # how far two equal runs are apart
    ]
    if options.plain:
        engines.append(load_engine(options.model, config))
        modes.append(Mode("no filter", engines[-1], avoids=False))
    for engine in engines:
        await engine.start()
    prompts = _prompts(options, filtered)
    figures: dict[str, list[_Figures]] = {mode.name: [] for mode in modes}
    for round_ in range(options.rounds + 1):
        for mode in modes if round_ % 2 else modes[::-1]:
            found = await _run(mode, prompts, options, round_, guards.ngrams)
            if round_:  # the first round warms up
                figures[mode.name].append(found)
    for engine in engines:
        await engine.stop()
    guards.close()
    _print_figures(options, figures)


def _prompts(options: argparse.Namespace, engine: Engine) -> list[tuple[int, ...]]:
    """A prompt for each stream."""
    if not options.corpus:
        return [tuple(engine.tokenizer.encode(PROMPT)[:_PROMPT_TOKENS])] * options.concurrency
    documents = itertools.islice(read_corpus(corpus_files(options.corpus)), options.concurrency)
    texts = (document.text[:1000] for document in documents)
    return [tuple(engine.tokenizer.encode(text)[:_PROMPT_TOKENS]) for text in texts]


async def _run(
    mode: Mode,
    prompts: list[tuple[int, ...]],
    options: argparse.Namespace,
    round_: int,
    ngrams: NgramFilter,
) -> _Figures:

    async def one(index: int) -> list[int]:
        request = GenerationRequest(
            request_id=f"{mode.name}-{round_}-{index}",
            prompt_token_ids=prompts[index % len(prompts)],
            params=SamplingParams(
                max_tokens=options.max_tokens,
                seed=round_ * options.concurrency + index,
                ignore_eos=True,
            ),
            avoid_ngrams=mode.avoids,
        )
        tokens: list[int] = []
        async for delta in mode.engine.generate(request):
            tokens += delta.token_ids
        return tokens

    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    streams = await asyncio.gather(*(one(index) for index in range(options.concurrency)))
    total_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    tokens = sum(map(len, streams))
    mask = np.uint64((1 << ngrams.hash_bits) - 1)
    found = [
        contains(ngrams.words, kgram_hashes(np.array(tokens), ngrams.ngram) & mask)
        for tokens in streams
    ]
    return _Figures(
        speed=tokens / total_s,
        cpu_s=cpu_s / tokens,
        forbidden=float(np.concatenate(found).mean()),
    )


def _print_filter(ngrams: NgramFilter, vocab_size: int) -> None:
    random = np.random.default_rng(0).integers(0, vocab_size, _RANDOM_NGRAMS + ngrams.ngram - 1)
    mask = np.uint64((1 << ngrams.hash_bits) - 1)
    errors = contains(ngrams.words, kgram_hashes(random, ngrams.ngram) & mask).mean()
    print(
        f"{ngrams.ngram}-grams in {ngrams.words.nbytes:,} bytes; no run of "
        f"{ngrams.guarantee_tokens} training tokens is said; of random n-grams "
        f"{100 * errors:.3f} % are taken for training data"
    )


def _print_figures(options: argparse.Namespace, figures: dict[str, list[_Figures]]) -> None:
    table = Table(
        title=f"{options.model}: {options.concurrency} at once, {options.max_tokens} tokens each"
    )
    headings = ("", "tokens/s", "of off", "lowest", "highest", "processor time of off", "forbidden")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    off = figures["off"]
    for name, found in figures.items():
        ratios = [mine.speed / plain.speed for mine, plain in zip(found, off, strict=True)]
        times = [mine.cpu_s / plain.cpu_s for mine, plain in zip(found, off, strict=True)]
        shares = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(
            name,
            f"{statistics.median(run.speed for run in found):,.0f}",
            *(f"{100 * share:.1f} %" for share in (*shares, statistics.median(times))),
            f"{100 * statistics.mean(run.forbidden for run in found):.3f} %",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
