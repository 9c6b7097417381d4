"""How many planted near duplicates are found, beside what the S-curve says.

python -m benchmarks.recall CORPUS… [--copies N]

Copies of windows of CORPUS, each word replaced by another word of it with a probability of 5, 10
and 20 %, are looked up in an index of it. `expected` is the mean of the S-curve at the true Jaccard
similarity of each copy and its window, `found` how many windows were met in some band, with
Wilson's 95 % interval, and `returned` those of them whose estimated similarity is 0.5 or more,
which is what a query returns unless it asks for others.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from memorization.build import build_index
from memorization.corpus import Document, corpus_files, read_corpus
from memorization.disk_index import DiskIndex
from memorization.layout import IndexParameters
from memorization.lsh import match_probability
from memorization.shingles import Windows, split_words
from memorization.signatures import SignatureKind
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer

KINDS: tuple[SignatureKind, ...] = ("talipot", "datasketch")
EDITS = (0.05, 0.10, 0.20)
_RETURNED = 0.5
_Z = 1.959964


def main(corpus: Sequence[Path], copies: int) -> None:
    """Print the table."""
    documents = [d for d in read_corpus(corpus_files(corpus)) if len(split_words(d.text)) >= 100]
    tokenizer = load_tokenizer(resolve_model("talipot-tiny"))
    print(f"{copies} copies of windows of {len(documents)} documents")
    print("signature   replaced  similarity  expected  found (95 %)            returned")
    for kind in KINDS:
        parameters = IndexParameters(exact=False, signature=kind)
        with tempfile.TemporaryDirectory() as folder:
            build_index(corpus, tokenizer, Path(folder), parameters)
            index = DiskIndex.open(Path(folder))
            for edits in EDITS:
                _row(index, documents, edits, copies)


def _row(index: DiskIndex, documents: Sequence[Document], edits: float, copies: int) -> None:
    rng = random.Random(f"{edits}")
    windows, banding = index.parameters.windows, index.parameters.banding
    similarities, expected, found, returned = [], [], 0, 0
    for _ in range(copies):
        document = rng.choice(documents)
        words = split_words(document.text)
        start = int(rng.choice(windows.starts(len(words)).tolist()))
        window = words[start : start + windows.window_words]
        copy = [rng.choice(words) if rng.random() < edits else word for word in window]
        similarities.append(_jaccard(window, copy, windows))
        expected.append(match_probability(similarities[-1], banding))
        met = [
            near.similarity
            for near in index.near_duplicates(" ".join(copy), min_similarity=0.0)
            if (near.document, near.first_word) == (document.id, start)
        ]
        found += bool(met)
        returned += bool(met) and met[0] >= _RETURNED
    low, high = wilson(found, copies)
    print(
        f"{index.parameters.signature:<12}{edits:>7.0%} {sum(similarities) / copies:>10.3f} "
        f"{sum(expected) / copies:>10.2%}  {found / copies:.2%} ({low:.2%} to {high:.2%})  "
        f"{returned / copies:>9.2%}"
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    share, z2 = successes / trials, _Z * _Z
    middle = share + z2 / (2 * trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    return (middle - half) / (1 + z2 / trials), (middle + half) / (1 + z2 / trials)


def _jaccard(one: Sequence[str], other: Sequence[str], windows: Windows) -> float:
    sets = [
        {
            tuple(words[at : at + windows.shingle_words])
            for at in range(windows.shingles_of(len(words)))
        }
        for words in (one, other)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--copies", type=int, default=2000)
    options = parser.parse_args()
    main(options.corpus, options.copies)
