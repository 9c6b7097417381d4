"""How fast near-duplicate documents are removed, and which, beside datatrove and text-dedup.

python -m benchmarks.dedup CORPUS [--datatrove PYTHON] [--text-dedup PYTHON] [--rounds N]

Documents of CORPUS (JSONL), and behind them copies with 1 to 10 % of their words replaced. All
programs work on the same file with one process, shingles of 5 words and the bands that `talipot
corpus dedup` chooses; the rounds alternate, and medians are printed. What should be removed is
known by brute force: the exact Jaccard similarity of each copy with its original. Of the two either
may go.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memorization.corpus import corpus_files, read_corpus
from memorization.dedup.parameters import DedupParameters
from memorization.dedup.run import DedupResult, deduplicate
from memorization.shingles import split_words
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer

_COPIES = 2000
_EDITS = (0.01, 0.02, 0.05, 0.1)
_BINS = (0.0, 0.6, 0.7, 0.8, 0.9, 1.01)
_PEERS = {name: Path(__file__).parent / f"dedup_{name}.py" for name in ("datatrove", "text_dedup")}


class _Copy(NamedTuple):
    """A copy, its original, and their Jaccard similarity."""

    name: str
    original: str
    similarity: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("corpus", type=Path)
    for name in _PEERS:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=Path, metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    peers = {name: python for name in _PEERS if (python := getattr(options, name))}
    parameters = DedupParameters(exact=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copies, characters = _write_slice(options.corpus, folder, parameters.shingle_words)
        names = ["talipot corpus dedup --no-exact", *peers]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        removed: dict[str, set[str]] = {}
        for number in range(options.rounds):
            for name in names:
                if name in peers:
                    work = folder / f"{name}-{number}"
                    took, gone = _run_peer(folder, work, parameters, peers[name], _PEERS[name])
                else:
                    took, gone = _run_ours(folder, number, parameters)
                seconds[name].append(took)
                removed[name] = gone
        print(f"{characters / 1e6:.1f} M characters, {len(copies):,} copies")
        for name in names:
            _print_speed(name, seconds[name], characters)
            _print_removed(removed[name], copies)
        began = time.perf_counter()
        result = _dedup(folder, "exact", DedupParameters())
        took = time.perf_counter() - began
        print(
            f"with repeated passages of 50 tokens: {took:.1f} s, "
            f"{characters / 1e6 / took:.2f} MB/s; {len(result.cuts):,} passages cut"
        )


def _write_slice(corpus: Path, folder: Path, shingle_words: int) -> tuple[list[_Copy], int]:
    """Write the documents and their copies; the copies, and characters."""
    rng = random.Random(0)
    documents = list(read_corpus(corpus_files([corpus])))
    words = [word for one in documents[:200] for word in one.text.split(" ")]
    copies, characters = [], 0
    (folder / "corpus").mkdir()
    with (folder / "corpus" / "slice.jsonl").open("w", encoding="utf-8") as file:
        for one in documents:
            file.write(json.dumps({"id": one.id, "text": one.text}) + "\n")
            characters += len(one.text)
        for number, one in enumerate(rng.sample(documents, _COPIES)):
            share = _EDITS[number % len(_EDITS)]
            text = " ".join(
                rng.choice(words) if rng.random() < share else word for word in one.text.split(" ")
            )
            left, right = (_shingles(each, shingle_words) for each in (one.text, text))
            similarity = len(left & right) / max(1, len(left | right))
            copies.append(_Copy(f"copy-{number}", one.id, similarity))
            file.write(json.dumps({"id": f"copy-{number}", "text": text}) + "\n")
            characters += len(text)
    return copies, characters


def _shingles(text: str, size: int) -> set[tuple[str, ...]]:
    words = split_words(text)
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


def _dedup(folder: Path, name: str, parameters: DedupParameters) -> DedupResult:
    tokenizer = load_tokenizer(resolve_model("talipot-tiny"))
    out = folder / f"{name}.jsonl"
    return deduplicate([folder / "corpus"], tokenizer, folder / name, out, parameters)


def _run_ours(folder: Path, number: int, parameters: DedupParameters) -> tuple[float, set[str]]:
    began = time.perf_counter()
    result = _dedup(folder, f"ours-{number}", parameters)
    seconds = time.perf_counter() - began
    return seconds, {result.names[place][0] for place in result.clusters.removed.tolist()}


def _run_peer(
    folder: Path, work: Path, parameters: DedupParameters, python: Path, script: Path
) -> tuple[float, set[str]]:
    banding = parameters.banding
    sizes = (parameters.shingle_words, banding.bands, banding.rows)
    command = [python, script, folder / "corpus", work, *sizes]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], set(answer["removed"])


def _print_speed(name: str, seconds: Sequence[float], characters: int) -> None:
    median = statistics.median(seconds)
    shown = ", ".join(f"{one:.1f}" for one in seconds)
    print(f"{name}: {median:.1f} s ({shown}), {characters / 1e6 / median:.2f} MB/s")


def _print_removed(removed: set[str], copies: Sequence[_Copy]) -> None:
    """Copies that were removed or whose original was, by their true similarity."""
    places = np.digitize([copy.similarity for copy in copies], _BINS) - 1
    for place, (low, high) in enumerate(itertools.pairwise(_BINS)):
        some = [copy for copy, at in zip(copies, places, strict=True) if at == place]
        gone = sum(bool({copy.name, copy.original} & removed) for copy in some)
        print(f"  similarity {low:.1f} to {min(high, 1):.1f}: {gone:,} of {len(some):,} removed")
    pairs = {name for copy in copies for name in (copy.name, copy.original)}
    print(f"  other documents removed: {len(removed - pairs):,}")


if __name__ == "__main__":
    main()
