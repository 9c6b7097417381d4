"""How fast an index of training text is built and answers, beside the peers.

python -m benchmarks.index CORPUS… [--folder DIR] [--windows N] [--datasketch-windows N]
    [--only PART…]

The queries are pieces of CORPUS, half of them as they stand and half with a tenth of their words
replaced. The index of near duplicates has windows close enough to each other that there are N. In
Redis there is one of our layout, with fingerprints, and then one of datasketch's signatures and
layout, which is asked by us and by plain datasketch. CPU time is of all threads of this process:
other work on the machine hardly changes it. DIR needs about four times the corpus, and Redis about
7.5 KB of memory for each window in datasketch's layout.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import redis
from datasketch import MinHash, MinHashLSH
from rensa import RMinHash

from benchmarks.redis_server import running_redis
from memorization import kernels
from memorization.build import BuildResult, build_index
from memorization.corpus import corpus_files, read_corpus
from memorization.disk_index import DiskIndex
from memorization.layout import IndexParameters
from memorization.opening import open_embedded
from memorization.redis_build import build_redis_index
from memorization.redis_index import RedisIndex
from memorization.redis_store import STATE
from memorization.shingles import Windows, split_words
from memorization.signatures import make_signer
from model.checkpoint import resolve_model
from model.tokenizer import Tokenizer, load_tokenizer

Query = TypeVar("Query")

PARTS = ("signatures", "build", "trace", "near", "redis")
_QUERIES = 200
_QUERY_TOKENS, _QUERY_WORDS = 256, 190
_DOCUMENT_WORDS, _NUM_PERM, _ROUNDS = 300, 128, 7


def main(
    corpus: Sequence[Path],
    folder: Path,
    windows: int,
    datasketch_windows: int,
    parts: Sequence[str],
) -> None:
    """Print a table for each part."""
    print(f"kernels: {kernels.status()}")
    tokenizer = load_tokenizer(resolve_model("talipot-tiny"))
    words = [w for d in islice(read_corpus(corpus_files(corpus)), 20) for w in d.text.split(" ")]
    texts = _query_texts(words)
    if "signatures" in parts:
        _signatures(" ".join(words))
    if "build" in parts:
        shutil.rmtree(folder / "index", ignore_errors=True)
    result = _build(corpus, tokenizer, folder / "index")
    if "trace" in parts:
        _trace(folder / "index", tokenizer, texts)
    shorter = [" ".join(text.split(" ")[:_QUERY_WORDS]) for text in texts]
    dense = _dense(result, windows)
    if "near" in parts:
        built = build_index(corpus, tokenizer, folder / "near", dense)
        index = DiskIndex.open(folder / "near")
        _heading(f"near duplicates, {built.windows:,} windows")
        _latency("in process", index.near_duplicates, shorter)
    if "redis" in parts:
        with running_redis() as client:
            _redis(client, corpus, dense, shorter)
            _redis_runs(client, corpus, tokenizer, texts)
        with running_redis() as client:
            _datasketch(client, corpus, _dense(result, datasketch_windows), shorter)


def _query_texts(words: list[str]) -> list[str]:
    rng = random.Random(1)
    texts = []
    for number in range(_QUERIES):
        begin = rng.randrange(len(words) - 400)
        piece = words[begin : begin + 400]
        if number % 2:
            piece = [rng.choice(words) if rng.random() < 0.1 else word for word in piece]
        texts.append(" ".join(piece))
    return texts


def _dense(result: BuildResult, windows: int) -> IndexParameters:
    """Parameters of an index of near duplicates with at least so many windows."""
    usual = Windows()
    # A document's last window ends with it, whatever the stride.
    ratio = (result.windows - result.documents) / max(1, windows - result.documents)
    stride = min(usual.window_words, max(1, int(usual.stride_words * ratio)))
    return IndexParameters(exact=False, windows=dataclasses.replace(usual, stride_words=stride))


def _heading(name: str) -> None:
    print(f"\n{name:<50}{'p50 ms':>9}{'p99 ms':>9}{'p50 CPU ms':>12}")


def _latency(name: str, query: Callable[[Query], object], given: list[Query]) -> None:
    for warm in given[:20]:
        query(warm)
    wall, used = [], []
    for one in given:
        began, began_cpu = time.perf_counter(), time.process_time()
        query(one)
        wall.append(1e3 * (time.perf_counter() - began))
        used.append(1e3 * (time.process_time() - began_cpu))
    p50, p99 = np.percentile(wall, [50, 99])
    print(f"  {name:<48}{p50:9.2f}{p99:9.2f}{np.median(used):12.2f}")


def _trace(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    index, embedded = DiskIndex.open(folder), open_embedded("talipot-tiny")
    tokens = [tokenizer.encode(text)[:_QUERY_TOKENS] for text in texts]
    _heading(f"exact trace of {_QUERY_TOKENS} tokens")
    _latency("suffix array, all runs, documents and counts", index.longest_matches, tokens)
    _latency(
        "the same, runs of 20 tokens and more",
        lambda query: index.longest_matches(query, min_tokens=20),
        tokens,
    )
    _latency("fingerprints of talipot-tiny", embedded.longest_matches, tokens)


def _build(corpus: Sequence[Path], tokenizer: Tokenizer, folder: Path) -> BuildResult:
    began, began_cpu = time.perf_counter(), time.process_time()
    result = build_index(corpus, tokenizer, folder)
    wall, used = time.perf_counter() - began, time.process_time() - began_cpu
    megabytes = result.characters / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if result.was_complete:
        return result
    print(
        f"\nbuild: {megabytes:.1f} M characters, {result.documents:,} documents, "
        f"{result.tokens:,} tokens, {result.windows:,} windows\n"
        f"  {wall:.1f} s, {megabytes / wall:.2f} MB/s; CPU {used:.1f} s, {megabytes / used:.2f} MB "
        f"for each CPU second\n"
        f"  {result.bytes / 1e6:.1f} MB, {result.bytes / result.characters:.2f} bytes for each "
        f"character; at most {peak:.2f} GB of memory in this process"
    )
    return result


def _redis(
    client: redis.Redis, corpus: Sequence[Path], parameters: IndexParameters, texts: list[str]
) -> None:
    index, windows = _build_redis(client, corpus, parameters)
    _heading(f"near duplicates in Redis, {windows:,} windows")
    _latency("ours, with similarities and documents", index.near_duplicates, texts)


def _redis_runs(
    client: redis.Redis, corpus: Sequence[Path], tokenizer: Tokenizer, texts: list[str]
) -> None:
    before: Any = client.info("memory")
    began = time.perf_counter()
    parameters = IndexParameters(near=False)
    index = build_redis_index(corpus, client, "runs", parameters, tokenizer=tokenizer)
    seconds = time.perf_counter() - began
    after: Any = client.info("memory")
    megabytes = (after["used_memory"] - before["used_memory"]) / 1e6
    print(f"\nRedis: fingerprints in {seconds:.0f} s, {megabytes:,.0f} MB")
    _heading(f"runs of {_QUERY_TOKENS} tokens in Redis")
    tokens = [tokenizer.encode(text)[:_QUERY_TOKENS] for text in texts]
    _latency("fingerprints, with documents and counts", index.longest_matches, tokens)


def _build_redis(
    client: redis.Redis, corpus: Sequence[Path], parameters: IndexParameters
) -> tuple[RedisIndex, int]:
    """An index of near duplicates, and its windows."""
    parameters = dataclasses.replace(parameters, exact=False)
    began = time.perf_counter()
    index = build_redis_index(corpus, client, "near", parameters)
    seconds = time.perf_counter() - began
    state: Any = client.get(index.basename + STATE)
    windows: int = json.loads(state)["progress"]["windows"]
    memory: Any = client.info("memory")
    print(
        f"\nRedis, signatures and layout of {parameters.signature}: {windows:,} windows in "
        f"{seconds:.0f} s, {memory['used_memory'] / windows:,.0f} bytes for each"
    )
    return index, windows


def _datasketch(
    client: redis.Redis, corpus: Sequence[Path], parameters: IndexParameters, texts: list[str]
) -> None:
    parameters = dataclasses.replace(parameters, signature="datasketch")
    index, windows = _build_redis(client, corpus, parameters)
    where = client.connection_pool.connection_kwargs
    banding = parameters.banding
    lsh = MinHashLSH(
        num_perm=banding.num_perm,
        params=(banding.bands, banding.rows),
        prepickle=False,
        storage_config={
            "type": "redis",
            "basename": index.basename,
            "redis": {"host": where["host"], "port": where["port"]},
        },
    )

    def datasketch(text: str) -> list[Any]:
        words = split_words(text)
        found = []
        for start in parameters.windows.starts(len(words)).tolist():
            window = words[start : start + parameters.windows.window_words]
            found += lsh.query(_sketch(_shingles(window, parameters.windows), banding.num_perm))
        return found

    _heading(f"near duplicates in Redis, {windows:,} windows, datasketch's layout")
    _latency("ours, with similarities and documents", index.near_duplicates, texts)
    _latency("datasketch's MinHashLSH, keys alone", datasketch, texts)


def _shingles(words: list[str], windows: Windows) -> list[str]:
    n = windows.shingle_words
    return [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]


def _sketch(shingles: list[str], num_perm: int) -> MinHash:
    sketch = MinHash(num_perm=num_perm)
    sketch.update_batch([shingle.encode() for shingle in shingles])
    return sketch


def _signatures(text: str) -> None:
    size = _DOCUMENT_WORDS
    windows = Windows(window_words=size, stride_words=size)
    words = split_words(text)[: 5000 * size]
    documents = [words[at : at + size] for at in range(0, len(words) - size + 1, size)]
    shingles = [_shingles(document, windows) for document in documents]
    text = " ".join(word for document in documents for word in document)
    signer = make_signer("talipot", windows, _NUM_PERM)
    contenders: list[tuple[str, int, Callable[[], object]]] = [
        ("ours, from text, on one core", len(documents), lambda: signer.sign(text)),
        (
            "rensa, from sets of shingles, on all cores",
            len(documents),
            lambda: RMinHash.digest_matrix_from_token_sets(shingles, _NUM_PERM, 1).to_rows(),
        ),
        (
            "datasketch's update_batch, from shingles",
            200,
            lambda: [_sketch(some, _NUM_PERM) for some in shingles[:200]],
        ),
    ]
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in contenders}
    for _ in range(_ROUNDS):  # in turn, so that other work on the machine meets all of them
        for name, count, run in contenders:
            began, began_cpu = time.perf_counter(), time.process_time()
            run()
            wall, used = time.perf_counter() - began, time.process_time() - began_cpu
            rates[name].append((count / wall, count / used))
    print(
        f"\nsignatures, {size} words, {_NUM_PERM} permutations; documents   a second   a CPU second"
    )
    for name, found in rates.items():
        seconds, cpu = np.median(np.array(found), axis=0)
        print(f"  {name:<52}{seconds:14,.0f}{cpu:15,.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, help="keep the indexes here, and take those there")
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--datasketch-windows", type=int, help="of datasketch's layout; N windows")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        main(
            options.corpus,
            options.folder or Path(scratch),
            options.windows,
            options.datasketch_windows or options.windows,
            options.only,
        )
