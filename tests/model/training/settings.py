"""A run so small that a test can take it from first step to last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.training.config import TrainingConfig
from tests.tiny_tokenizer import TEXT

MODEL = {
    "name": "tiny",
    "vocab_size": 400,
    "num_layers": 1,
    "d_model": 16,
    "num_heads": 2,
    "head_dim": 8,
    "d_ff": 32,
    "max_seq_len": 32,
}
SEQ_LEN = 16
BATCH_SIZE = 8
DOCUMENTS = tuple(" ".join(TEXT.split()[start:]) for start in range(40))
HELDOUT = ("The mermaid swam to the shore, and 12 horses walked.", "It was wisdom — so … ") * 4


def write_documents(path: Path, texts: tuple[str, ...]) -> Path:
    """A `.jsonl` file of documents."""
    lines = [json.dumps({"id": f"{path.stem}-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_settings(folder: Path, tokenizer: Path, **changes: Any) -> dict[str, Any]:
    """A run's settings as TOML gives them, all its files in `folder`."""
    train = write_documents(folder / "train.jsonl", DOCUMENTS)
    heldout = write_documents(folder / "heldout.jsonl", HELDOUT)
    return {
        "run_dir": str(folder / "run"),
        "seed": 3,
        "steps": 12,
        "checkpoint_every": 4,
        "keep": 3,
        "log_every": 1,
        "peak_flops": 1e11,
        "model": MODEL,
        "data": {
            "train": [str(train)],
            "heldout": str(heldout),
            "tokenizer": str(tokenizer),
            "cache_dir": str(folder / "tokens"),
        },
        "optimizer": {"hold_steps": 6, "cooldown_steps": 2},
        "stages": [{"step": 0, "batch_size": BATCH_SIZE, "seq_len": SEQ_LEN}],
        **changes,
    }


def run_config(folder: Path, tokenizer: Path, **changes: Any) -> TrainingConfig:
    """The same as a `TrainingConfig`."""
    return TrainingConfig.from_dict(run_settings(folder, tokenizer, **changes))


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, in the order in which they were written."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def losses(run_dir: Path) -> dict[int, float]:
    """Loss by step; of a step that was taken again, the last."""
    return {r["step"]: r["loss"] for r in read_metrics(run_dir) if "loss" in r}
