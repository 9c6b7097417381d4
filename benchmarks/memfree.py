"""What does avoiding training n-grams cost, and how often does it change a token?

    python -m benchmarks.memfree INDEX [MODEL] [--concurrency 32] [--max-tokens 256] [--rounds 5]
        [--plain] [--corpus CORPUS…]

INDEX is one of `talipot index build` (with its default n-grams), or an embedded model's name. One
engine serves the same requests with and without `memorization.action="avoid"`, turn by turn, so
that what else the machine does meets both alike; `--plain` adds an engine without a filter, which
shows what having one costs those that do not ask. Figures are medians over rounds of the ratio to
`off` in the same round. With CORPUS, prompts are the openings of its documents.
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
    speeds: dict[str, list[float]] = {mode.name: [] for mode in modes}
    shares: dict[str, list[float]] = {mode.name: [] for mode in modes}
    for round_ in range(options.rounds + 1):
        for mode in modes if round_ % 2 else modes[::-1]:
            speed, share = await _run(mode, prompts, options, round_, guards.ngrams)
            if round_:  # the first round warms up
                speeds[mode.name].append(speed)
                shares[mode.name].append(share)
    for engine in engines:
        await engine.stop()
    guards.close()
    _print_speeds(options, speeds, shares)


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
) -> tuple[float, float]:
    """Tokens per second of all streams, and the share of n-grams that are forbidden ones."""

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

    start_s = time.perf_counter()
    streams = await asyncio.gather(*(one(index) for index in range(options.concurrency)))
    total_s = time.perf_counter() - start_s
    mask = np.uint64((1 << ngrams.hash_bits) - 1)
    found = [
        contains(ngrams.words, kgram_hashes(np.array(tokens), ngrams.ngram) & mask)
        for tokens in streams
    ]
    return sum(map(len, streams)) / total_s, float(np.concatenate(found).mean())


def _print_filter(ngrams: NgramFilter, vocab_size: int) -> None:
    random = np.random.default_rng(0).integers(0, vocab_size, _RANDOM_NGRAMS + ngrams.ngram - 1)
    mask = np.uint64((1 << ngrams.hash_bits) - 1)
    errors = contains(ngrams.words, kgram_hashes(random, ngrams.ngram) & mask).mean()
    print(
        f"{ngrams.ngram}-grams in {ngrams.words.nbytes:,} bytes; no run of "
        f"{ngrams.guarantee_tokens} training tokens is said; of random n-grams "
        f"{100 * errors:.3f} % are taken for training data"
    )


def _print_speeds(
    options: argparse.Namespace, speeds: dict[str, list[float]], shares: dict[str, list[float]]
) -> None:
    table = Table(
        title=f"{options.model}: {options.concurrency} at once, {options.max_tokens} tokens each"
    )
    for heading in ("", "tokens/s", "of off", "lowest", "highest", "forbidden n-grams"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in speeds.items():
        ratios = [mine / off for mine, off in zip(found, speeds["off"], strict=True)]
        table.add_row(
            name,
            f"{statistics.median(found):,.0f}",
            *(f"{100 * each:.1f} %" for each in (statistics.median(ratios), min(ratios))),
            f"{100 * max(ratios):.1f} %",
            f"{100 * statistics.mean(shares[name]):.3f} %",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
