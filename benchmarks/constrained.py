"""What a JSON schema costs: tokens/s with none and with all of the streams constrained by one.

The schema's array is never full, so that every stream runs to its `--max-tokens`, as the free ones
do; both kinds take turns on one engine. Then what the host has to do: compiling, and a mask.

    python -m benchmarks.constrained
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from api.engine import load_engine
from model.tokenizer import Tokenizer
from serving.config import EngineConfig
from serving.constraint import Constraint
from serving.engine import Engine
from serving.grammar import Grammar, GrammarCompiler
from serving.request import GenerationRequest, SamplingParams

PROMPT = "A list of people as JSON: "
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "pattern": "^[a-z]{3,12}@[a-z]{3,12}[.]org$"},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string"},
                "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
                "country": {"enum": ["Denmark", "Estonia", "Finland", "Norway", "Sweden"]},
            },
            "required": ["street", "zip", "country"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "email", "address"],
    "additionalProperties": False,
}
ENDLESS = {"type": "array", "items": PERSON, "minItems": 10_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="talipot-tiny")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> None:
    engine = load_engine(options.model, EngineConfig(max_slots=options.streams))
    await engine.start()
    grammar = await engine.compile(Constraint.of_json_schema(ENDLESS))
    rates: dict[str, list[float]] = {"none": [], "all": []}
    for round_ in range(options.rounds + 1):
        for name, constraint in (("none", None), ("all", grammar)):
            rate = await _tokens_per_s(engine, constraint, options, round_)
            if round_:  # the first round warms up
                rates[name].append(rate)
    await engine.stop()
    _print(options, rates)
    _print_host(engine.tokenizer)


async def _tokens_per_s(
    engine: Engine, grammar: Grammar | None, options: argparse.Namespace, round_: int
) -> float:
    prompt = tuple(engine.tokenizer.encode(PROMPT))

    async def one(index: int) -> int:
        request = GenerationRequest(
            request_id=f"{index}",
            prompt_token_ids=prompt,
            params=SamplingParams(
                max_tokens=options.max_tokens, seed=1000 * round_ + index, ignore_eos=True
            ),
            constraint=grammar,
        )
        return sum([len(delta.token_ids) async for delta in engine.generate(request)])

    start_s = time.perf_counter()
    tokens = await asyncio.gather(*(one(index) for index in range(options.streams)))
    return sum(tokens) / (time.perf_counter() - start_s)


def _print(options: argparse.Namespace, rates: dict[str, list[float]]) -> None:
    table = Table(
        title=f"{options.model}: {options.streams} streams of {options.max_tokens} tokens"
    )
    for heading in ("constrained", "tokens/s, median", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading == "constrained" else "right")
    for name, values in rates.items():
        figures = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(f"{value:,.0f}" for value in figures))
    ratios = [some / free for free, some in zip(rates["none"], rates["all"], strict=True)]
    figures = (statistics.median(ratios), min(ratios), max(ratios))
    table.add_row("all / none", *(f"{value:.3f}" for value in figures))
    Console().print(table)


def _print_host(tokenizer: Tokenizer) -> None:
    """Milliseconds to compile a schema of one person, anew each time, and of masks on the way."""
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size)
    compiler.make_ready()
    compiling = []
    for number in range(50):
        schema = {**PERSON, "title": str(number)}
        start_s = time.perf_counter()
        grammar = compiler.compile(Constraint.of_json_schema(json.dumps(schema)))
        compiling.append(1000 * (time.perf_counter() - start_s))
    masking = []
    generator = np.random.default_rng(0)
    masks = np.zeros((1, compiler.mask_words), np.int32)
    for _ in range(20):
        matcher = grammar.matcher()
        while not matcher.is_complete:
            start_s = time.perf_counter()
            compiler.fill(masks, {0: matcher})
            masking.append(1000 * (time.perf_counter() - start_s))
            bits = np.unpackbits(masks[0].view(np.uint8), bitorder="little")
            matcher.take(int(generator.choice(np.flatnonzero(bits))))
    compiler.close()
    table = Table(title="milliseconds of the host")
    for heading in ("", "median", "99th of 100", "highest"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in (("compile the schema", compiling), ("one mask", masking)):
        figures = (statistics.median(values), np.percentile(values, 99), max(values))
        table.add_row(name, *(f"{value:.3f}" for value in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
