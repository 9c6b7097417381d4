"""How fast an index of training text answers, and how fast signatures are, beside the peers.

python -m benchmarks.index DIR [CORPUS…]

DIR is an index of `talipot index build`; the queries are pieces of CORPUS, half of them as they
stand and half with a tenth of their words replaced.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from datasketch import MinHash
from rensa import RMinHash

from memorization.corpus import corpus_files, read_corpus
from memorization.disk_index import DiskIndex
from memorization.opening import open_embedded
from memorization.shingles import Windows, split_words
from memorization.signatures import RensaSigner
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer

Query = TypeVar("Query")

_QUERIES = 200
_DOCUMENT_WORDS = 300
_NUM_PERM = 128


def main(index: Path, corpus: Sequence[Path]) -> None:
    """Print latencies of queries and rates of signatures."""
    words = [w for d in islice(read_corpus(corpus_files(corpus)), 20) for w in d.text.split(" ")]
    _queries(DiskIndex.open(index), words)
    _signatures(split_words(" ".join(words)))


def _queries(index: DiskIndex, words: list[str]) -> None:
    tokenizer = load_tokenizer(resolve_model("talipot-tiny"))
    rng = random.Random(1)
    texts = []
    for number in range(_QUERIES):
        begin = rng.randrange(len(words) - 400)
        piece = words[begin : begin + 400]
        if number % 2:
            piece = [rng.choice(words) if rng.random() < 0.1 else word for word in piece]
        texts.append(" ".join(piece))
    tokens = [tokenizer.encode(text)[:256] for text in texts]
    shorter = [" ".join(text.split(" ")[:190]) for text in texts]
    embedded = open_embedded("talipot-tiny")
    print("query of 256 tokens or their 190 words          p50 ms  p99 ms")
    _latency("suffix array, all runs, documents and counts", index.longest_matches, tokens)
    _latency(
        "the same, runs of 20 tokens and more",
        lambda query: index.longest_matches(query, min_tokens=20),
        tokens,
    )
    _latency("fingerprints of talipot-tiny", embedded.longest_matches, tokens)
    _latency("near duplicates in process", index.near_duplicates, shorter)


def _latency(name: str, query: Callable[[Query], object], given: list[Query]) -> None:
    for warm in given[:20]:
        query(warm)
    taken = []
    for one in given:
        began = time.perf_counter()
        query(one)
        taken.append(1e3 * (time.perf_counter() - began))
    print(f"  {name:<46}{np.percentile(taken, 50):6.2f}  {np.percentile(taken, 99):6.2f}")


def _signatures(words: list[str]) -> None:
    size = _DOCUMENT_WORDS
    documents = [words[at : at + size] for at in range(0, min(len(words), 1_500_000) - size, size)]
    shingles = [[" ".join(d[i : i + 3]) for i in range(size - 2)] for d in documents]
    signer = RensaSigner(Windows(window_words=size, stride_words=size), _NUM_PERM)
    start = np.zeros(1, np.int64)
    long = [word for document in documents for word in document]
    starts = np.arange(len(documents), dtype=np.int64) * size

    def datasketch() -> None:
        for document in shingles[:500]:
            sketch = MinHash(num_perm=_NUM_PERM)
            sketch.update_batch([shingle.encode() for shingle in document])

    signer.sign(documents[0], start)
    print(f"signatures, {size} words, {_NUM_PERM} permutations     documents/s")
    for name, count, run in (
        ("ours, from words", len(documents), lambda: signer.sign(long, starts)),
        (
            "rensa, from shingles",
            len(documents),
            lambda: RMinHash.digest_matrix_from_token_sets(shingles, _NUM_PERM, 1).to_rows(),
        ),
        ("datasketch update_batch, from shingles", 500, datasketch),
    ):
        rates = []
        for _ in range(3):
            began = time.perf_counter()
            run()
            rates.append(count / (time.perf_counter() - began))
        print(f"  {name:<46}{max(rates):10,.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
