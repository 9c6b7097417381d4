"""How many texts a second the scorers manage: the embedded one, and ONNX against detoxify itself.

    python -m benchmarks.scorers [--data ../shared/data] [--texts 96]

Detoxify's published weights need the network; speed depends on shapes alone, so a BERT of base
size with random weights stands in for them, in Detoxify's own checkpoint format.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def embedded(texts: Sequence[str]) -> None:
    load_s = seconds(lambda: load_scorer("embedded"))
    scorer = load_scorer("embedded")
    scorer.score(texts[:2000])
    rate = len(texts) / min(seconds(lambda: scorer.score(texts)) for _ in range(3))
    one_ms = [1e3 * seconds(lambda text=text: scorer.score([text[:100]])) for text in texts[:500]]
    print(
        f"embedded: {rate:,.0f} texts/s ({len(texts):,} comments of CAT, "
        f"{np.mean([len(text.split()) for text in texts]):.0f} words on average)"
    )
    print(
        f"embedded: one text of up to 100 characters {np.median(one_ms):.2f} ms (median), "
        f"{np.quantile(one_ms, 0.99):.2f} ms (99 %); loading {load_s:.2f} s"
    )


def encoders(texts: Sequence[str], folder: Path) -> None:
    path = folder / "bert-base" / "tiny.ckpt"
    if not path.is_file():
        make_checkpoint(path.parent, steps=0, **BERT_BASE)
    onnx = OnnxScorer.load(str(path), cache=folder)
    detoxify = DetoxifyScorer.load(str(path))
    onnx.score(texts[:4])
    detoxify.detoxify.predict(list(texts[:4]))
    slow_s, predicted = timed(lambda: detoxify.detoxify.predict(list(texts)))
    fast_s, scores = timed(lambda: onnx.score(texts))
    apart = float(np.abs(np.array(list(predicted.values())).T - scores).max())
    for name, spent_s in (
        ("detoxify.predict, all at once", slow_s),
        ("OnnxScorer", fast_s),
    ):
        print(f"{name:32} {len(texts) / spent_s:8.1f} texts/s {slow_s / spent_s:6.1f} x")
    print(f"largest difference of scores: {apart:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=64, help="for the encoders")
    parser.add_argument("--folder", type=Path, help="keeps the checkpoint and its graph there")
    arguments = parser.parse_args()
    comments = [row["text"] for row in rows(arguments.data / "cat" / "gn.csv")]
    embedded(comments)
    with tempfile.TemporaryDirectory() as folder:
        encoders(comments[: arguments.texts], arguments.folder or Path(folder))


if __name__ == "__main__":
    main()
