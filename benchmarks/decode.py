"""Tokens a second on the same weights: Talipot, llama.cpp and transformers.

Every contender runs in a process of its own, in turn, for each number of requests at once: prompts
of random tokens, no two alike, taken in and continued greedily. `prefill` asks for one new token of
each. llama.cpp is compiled from source, so it comes from any Python that has it:

    python -m venv llama && llama/bin/pip install llama-cpp-python
    python -m benchmarks.decode --model p50 --llama-python llama/bin/python

`p50` is a 50 M parameter PaLM with random weights; any embedded model's name or folder goes too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

P50 = {
    "name": "p50",
    "vocab_size": 8192,
    "num_layers": 12,
    "d_model": 512,
    "num_heads": 8,
    "head_dim": 64,
    "d_ff": 2048,
    "max_seq_len": 512,
}
TALIPOT = ("talipot int8", "talipot bfloat16", "talipot float32")
LLAMA = {"llama.cpp Q8_0": "q8_0", "llama.cpp BF16": "bf16", "llama.cpp F32": "f32"}
TRANSFORMERS = ("transformers float32", "transformers bfloat16")
# llama.cpp's numbers for file types.
FILE_TYPES = {"q8_0": 7, "bf16": 32}

Measure: TypeAlias = Callable[[list[list[int]], int], None]
"""Takes prompts and how many tokens to add to each, and does it."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What one process is asked: a contender, where its weights are, and the loads."""

    contender: str
    folder: str
    concurrency: list[int]
    prompt: int
    new: int
    vocab_size: int


def main() -> None:
    """Make the weights, run every contender `rounds` times in turn, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="p50")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-python", help="a Python that has llama_cpp")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(run_task(Task(**json.loads(options.task)))))
        return
    contenders: dict[str, str] = dict.fromkeys(TALIPOT, sys.executable)
    if options.llama_python:
        contenders |= dict.fromkeys(LLAMA, options.llama_python)
    if not options.no_transformers:
        contenders |= dict.fromkeys(TRANSFORMERS, sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        vocab_size = write_weights(options.model, Path(folder), gguf=bool(options.llama_python))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, python in contenders.items():
                task = Task(
                    name, folder, options.concurrency, options.prompt, options.new, vocab_size
                )
                found[name].append(_ask(python, task))
    show(options, found)


def write_weights(model: str, folder: Path, *, gguf: bool) -> int:
    """The same weights for everybody, below `folder`; returns the size of the vocabulary."""
    import jax

    from model.checkpoint import (
        Pretrained,
        export_gguf,
        export_huggingface,
        load_pretrained,
        resolve_model,
        save_pretrained,
    )
    from model.config import PaLMConfig
    from model.palm import init_parameters

    tokenizer = load_pretrained(resolve_model("talipot-tiny")).tokenizer
    if model == "p50":
        config = PaLMConfig(**P50)
        params = init_parameters(config, jax.random.key(0))
        pretrained = Pretrained(name="p50", config=config, params=params, tokenizer=tokenizer)
    else:
        pretrained = load_pretrained(resolve_model(model), dtype="float32")
    save_pretrained(folder / "talipot", pretrained.config, pretrained.params, pretrained.tokenizer)
    export_huggingface(pretrained, folder / "transformers")
    if gguf:
        export_gguf(pretrained, folder / "f32.gguf")
    return pretrained.config.vocab_size


def run_task(task: Task) -> dict[str, float]:
    """Tokens a second by load: `decode N` for N at once, and `prefill`."""
    kind = task.contender.split()[0]
    opened = {"talipot": _talipot, "llama.cpp": _llama, "transformers": _transformers}[kind](task)
    measure = next(opened)
    rates = {}
    for at_once in task.concurrency:
        measure(_prompts(task, at_once), 8)  # warms up
        seconds = _seconds(measure, _prompts(task, at_once), task.new)
        rates[f"decode {at_once}"] = at_once * task.new / seconds
    at_once = min(16, max(task.concurrency))
    seconds = _seconds(measure, _prompts(task, at_once), 1)
    rates["prefill"] = at_once * task.prompt / seconds
    opened.close()
    return rates


def _prompts(task: Task, count: int) -> list[list[int]]:
    generator = np.random.default_rng()
    return [
        [int(token) for token in generator.integers(3, task.vocab_size, task.prompt)]
        for _ in range(count)
    ]


def _seconds(measure: Measure, prompts: list[list[int]], new: int) -> float:
    began = time.perf_counter()
    measure(prompts, new)
    return time.perf_counter() - began


def _talipot(task: Task) -> Iterator[Measure]:
    from api.engine import load_engine
    from serving.config import EngineConfig
    from serving.request import GenerationRequest, SamplingParams

    form = task.contender.split()[1]
    config = EngineConfig(
        max_slots=max(task.concurrency),
        token_budget=256 + max(task.concurrency),
        dtype="bfloat16" if form == "bfloat16" else "float32",
        quantize="int8" if form == "int8" else "none",
        # Random weights soon repeat themselves, which any drafts would guess: no peer makes any.
        speculate="off",
    )
    engine = load_engine(str(Path(task.folder) / "talipot"), config)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.start())
    numbers = iter(range(1_000_000))

    async def one(prompt: list[int], new: int) -> None:
        request = GenerationRequest(
            request_id=f"{next(numbers)}",
            prompt_token_ids=tuple(prompt),
            params=SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True),
        )
        async for _ in engine.generate(request):
            pass

    def measure(prompts: list[list[int]], new: int) -> None:
        async def everything() -> None:
            await asyncio.gather(*(one(prompt, new) for prompt in prompts))

        loop.run_until_complete(everything())

    try:
        yield measure
    finally:
        loop.run_until_complete(engine.stop())


def _transformers(task: Task) -> Iterator[Measure]:
    import torch
    import transformers

    torch.set_num_threads(2)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        Path(task.folder) / "transformers", dtype=getattr(torch, task.contender.split()[1])
    )

    def measure(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=new,
                max_new_tokens=new,
                pad_token_id=0,
            )

    yield measure


def _llama(task: Task) -> Iterator[Measure]:
    """The C interface itself: every sequence in one batch, without Python's own loop a token."""
    import llama_cpp as llama

    form = LLAMA[task.contender]
    path = Path(task.folder) / f"{form}.gguf"
    if not path.exists():
        settings = llama.llama_model_quantize_default_params()
        settings.ftype = FILE_TYPES[form]
        source = (Path(task.folder) / "f32.gguf").as_posix().encode()
        if llama.llama_model_quantize(source, path.as_posix().encode(), settings):
            raise RuntimeError(f"llama.cpp cannot write {path.name}")
    model = llama.llama_model_load_from_file(
        path.as_posix().encode(), llama.llama_model_default_params()
    )
    at_once = max(task.concurrency)
    settings = llama.llama_context_default_params()
    settings.n_ctx = at_once * (task.prompt + task.new)
    settings.n_batch = settings.n_ubatch = 512
    settings.n_seq_max = at_once
    settings.n_threads = settings.n_threads_batch = 2
    context = llama.llama_init_from_model(model, settings)
    batch = llama.llama_batch_init(512, 0, 1)

    def run(rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Decode (token, position, sequence, wanted) rows; the best next token of wanted ones."""
        batch.n_tokens = len(rows)
        for index, (token, position, sequence, is_wanted) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = is_wanted
        if llama.llama_decode(context, batch):
            raise RuntimeError("llama.cpp cannot decode the batch")
        best = []
        for index, row in enumerate(rows):
            if row[3]:
                logits = llama.llama_get_logits_ith(context, index)
                best.append(int(np.ctypeslib.as_array(logits, (task.vocab_size,)).argmax()))
        return best

    def measure(prompts: list[list[int]], new: int) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        newest = []
        each = max(1, 512 // len(prompts[0]))
        for start in range(0, len(prompts), each):
            newest += run(
                [
                    (token, position, sequence, position == len(prompt) - 1)
                    for sequence, prompt in list(enumerate(prompts))[start : start + each]
                    for position, token in enumerate(prompt)
                ]
            )
        for step in range(new - 1):
            position = len(prompts[0]) + step
            newest = run(
                [(token, position, sequence, True) for sequence, token in enumerate(newest)]
            )

    yield measure


def _ask(python: str, task: Task) -> dict[str, float]:
    command = [python, "-m", "benchmarks.decode", "--task", json.dumps(dataclasses.asdict(task))]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rates: dict[str, float] = json.loads(answer.splitlines()[-1])
    return rates


def show(options: argparse.Namespace, found: dict[str, list[dict[str, float]]]) -> None:
    """A row for each contender: medians over the rounds, tokens a second."""
    columns = list(next(iter(found.values()))[0])
    print(
        f"{options.model}, prompts of {options.prompt}, {options.new} new tokens; tokens/s, "
        f"medians of {options.rounds}"
    )
    print("| | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name, rounds in found.items():
        medians = [statistics.median(each[column] for each in rounds) for column in columns]
        print(f"| {name} | " + " | ".join(f"{value:,.0f}" for value in medians) + " |")


if __name__ == "__main__":
    main()
