"""How many texts a second the scorers manage: the embedded one, and ONNX against detoxify itself.

    python -m benchmarks.scorers [--data ../shared/data] [--texts 24] [--rounds 3]

Detoxify's published weights need the network; speed depends on shapes alone, so a BERT of base
size with random weights stands in for them, in Detoxify's own checkpoint format. The two take
turns, and rates are medians over the rounds, so that a busy machine slows both alike; CPU seconds
say what each costs whatever else runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detoxify import Detoxify

from safety.scorers import load_scorer
from safety.scorers.detoxify import DetoxifyScorer
from safety.scorers.embedded.training.sources import rows
from safety.scorers.onnx import OnnxScorer
from tests.safety.tiny_detoxify import make_checkpoint

BERT_BASE = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of a call by the clock, and of all its threads' CPU time."""

    wall_s: float
    cpu_s: float


def timed(call: Callable[[], Any]) -> tuple[Spent, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu), result


def embedded(texts: Sequence[str]) -> None:
    load, scorer = timed(lambda: load_scorer("embedded"))
    scorer.score(texts[:2000])
    runs = [timed(lambda: scorer.score(texts))[0] for _ in range(3)]
    one_ms = [
        1e3 * timed(lambda text=text: scorer.score([text[:100]]))[0].wall_s for text in texts[:500]
    ]
    print(
        f"embedded: {len(texts) / min(run.wall_s for run in runs):,.0f} texts/s, "
        f"{len(texts) / min(run.cpu_s for run in runs):,.0f} a CPU second ({len(texts):,} comments "
        f"of CAT, {np.mean([len(text.split()) for text in texts]):.0f} words on average)"
    )
    print(
        f"embedded: one text of up to 100 characters {np.median(one_ms):.2f} ms (median), "
        f"{np.quantile(one_ms, 0.99):.2f} ms (99 %); loading {load.wall_s:.2f} s"
    )


def mixed_lengths(comments: Sequence[str], number: int) -> list[str]:
    """Texts of 4 to 100 words, their lengths spread evenly on a log scale, in random order.

    The stand-in's tokenizer makes about five tokens of a word, so that these are 20 to 500 tokens.
    """
    words = iter(" ".join(comments).split())
    lengths = np.rint(np.geomspace(4, 100, number)).astype(int)
    np.random.default_rng(0).shuffle(lengths)
    return [" ".join(itertools.islice(words, length)) for length in lengths.tolist()]


def encoders(comments: Sequence[str], number: int, folder: Path, rounds: int) -> None:
    path = folder / "bert-base" / "tiny.ckpt"
    if not path.is_file():
        make_checkpoint(path.parent, steps=0, **BERT_BASE)
    onnx = OnnxScorer.load(str(path), cache=folder)
    detoxify = DetoxifyScorer.load(str(path)).detoxify
    onnx.score(comments[:4])
    detoxify.predict(list(comments[:4]))
    compare(onnx, detoxify, "comments of CAT", comments[:number], rounds)
    compare(onnx, detoxify, "mixed lengths", mixed_lengths(comments, number), rounds)


def compare(
    onnx: OnnxScorer, detoxify: Detoxify, what: str, texts: Sequence[str], rounds: int
) -> None:
    slow, fast = [], []
    for _ in range(rounds):
        spent, predicted = timed(lambda: detoxify.predict(list(texts)))
        slow.append(spent)
        spent, scores = timed(lambda: onnx.score(texts))
        fast.append(spent)
    words = [len(text.split()) for text in texts]
    print(
        f"{what}: {len(texts)} texts of {min(words)} to {max(words)} words, "
        f"{np.mean(words):.0f} on average"
    )
    for name, runs in (("detoxify.predict, all at once", slow), ("OnnxScorer", fast)):
        wall_s = np.median([run.wall_s for run in runs])
        print(
            f"{name:32} {len(texts) / wall_s:8.1f} texts/s "
            f"{np.median([run.cpu_s for run in runs]) / len(texts):7.3f} CPU s a text"
        )
    by_wall = np.median([a.wall_s / b.wall_s for a, b in zip(slow, fast, strict=True)])
    by_cpu = np.median([a.cpu_s / b.cpu_s for a, b in zip(slow, fast, strict=True)])
    print(f"OnnxScorer is {by_wall:.1f} x as fast; it takes {by_cpu:.1f} x less CPU time")
    apart = float(np.abs(np.array(list(predicted.values())).T - scores).max())
    print(f"largest difference of scores: {apart:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=24, help="of each mix, for the encoders")
    parser.add_argument("--rounds", type=int, default=3, help="of the encoders")
    parser.add_argument("--folder", type=Path, help="keeps the checkpoint and its graph there")
    arguments = parser.parse_args()
    comments = [row["text"] for row in rows(arguments.data / "cat" / "gn.csv")]
    embedded(comments)
    with tempfile.TemporaryDirectory() as folder:
        kept = arguments.folder or Path(folder)
        encoders(comments, arguments.texts, kept, arguments.rounds)


if __name__ == "__main__":
    main()
