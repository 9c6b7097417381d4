"""Writes the training text with the canaries in it, and trains a model on it.

One file of canaries for each number of repetitions, which `talipot train` reads as often as that
(`data.repeats`); it shuffles all documents. Every model has its own `training.toml`, so that
`talipot train FOLDER/training.toml` makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from api.audit.canaries.config import CanariesConfig
from api.audit.folder import RunFolder
from memorization.corpus import corpus_files, read_corpus
from memorization.studies.canaries import Canary
from model.checkpoint.native import CONFIG_FILE
from model.errors import ConfigError
from model.tokenizer.sentencepiece_model import MODEL_FILE
from model.training.config import TrainingConfig
from model.training.data import pack_documents
from model.training.release import write_release
from model.training.run import train
from model.training.tokenizer import sample_passages

_TEXT = "text.jsonl"
_COOLDOWN_SHARE = 0.3
_CHECKPOINT_EVERY = 50
# A batch that happens to be all canaries has a high loss and is no spike: none may be skipped.
_NEVER_A_SPIKE = 1e9


def write_text(folder: RunFolder, config: CanariesConfig, canaries: Sequence[Canary]) -> None:
    """Write the files that are trained on, where they are not there yet.

    Raises:
        CorpusError: The corpus cannot be read.
    """
    for times, some in groupby(canaries, key=lambda canary: canary.repetitions):
        documents = ((one.document.id, one.document.text) for one in some)
        folder.write(_canary_file(times), _lines(documents))
    # Written last: its presence says that all of them are whole.
    if not (folder.path / _TEXT).exists():
        texts = (document.text for document in read_corpus(corpus_files([config.data])))
        sampled = sample_passages(texts, max_bytes=config.trained.characters, seed=config.run.seed)
        folder.write(_TEXT, _lines((f"text-{n}", text) for n, text in enumerate(sampled)))


def training_config(
    folder: Path, config: CanariesConfig, shape: str, tokenizer: Path, vocab_size: int
) -> Path:
    """Write the recipe of one model, one pass over the text; returns its TOML file.

    Args:
        folder: The experiment's.
        config: Its settings.
        shape: Of the model.
        tokenizer: Folder of the SentencePiece tokenizer.
        vocab_size: Its number of ids.
    """
    trained = config.trained
    times = [number for number in config.counts if number]
    data = {
        "train": [str(folder / _TEXT), *(str(folder / _canary_file(one)) for one in times)],
        "repeats": [1, *times],
        "tokenizer": str(tokenizer / MODEL_FILE),
        "cache_dir": str(folder / "tokens"),
    }
    model = trained.model(shape, vocab_size, config.cut.total_tokens).to_dict()
    values = {
        "run_dir": str(folder / shape),
        "seed": config.run.seed,
        "compute_dtype": trained.compute_dtype,
        "checkpoint_every": _CHECKPOINT_EVERY,
        "log_every": _CHECKPOINT_EVERY,
        "model": {key: value for key, value in model.items() if value is not None},
        "data": data,
        "spikes": {"threshold": _NEVER_A_SPIKE},
        "stages": [{"step": 0, "batch_size": trained.batch_size, "seq_len": trained.seq_len}],
    }
    # One pass: a canary is seen as often as its repetitions say.
    whole = TrainingConfig.from_dict({**values, "steps": 1})
    windows = (len(pack_documents(whole.data, whole.seed)) - 1) // trained.seq_len
    steps = windows // trained.batch_size
    if not steps:
        raise ConfigError(
            f"batch_size={trained.batch_size} sequences of seq_len={trained.seq_len} tokens are "
            f"more than the {windows} sequences of text that there are"
        )
    values["steps"] = steps
    values["optimizer"] = {
        "learning_rate": trained.learning_rate,
        "cooldown_steps": int(_COOLDOWN_SHARE * steps),
    }
    path = folder / shape / "training.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_toml(values), encoding="utf-8")
    return path


def trained_model(path: Path, report: Callable[[str], None]) -> Path:
    """Train by a TOML file, or go on with it; returns the model's folder.

    Raises:
        ConfigError: A value or file of the config cannot be used.
    """
    config = TrainingConfig.from_toml(path)
    folder = path.parent / "model"
    if not (folder / CONFIG_FILE).is_file():
        write_release(train(config, report=report), config, path)
    return folder


def _canary_file(repetitions: int) -> str:
    return f"canaries-{repetitions}.jsonl"


def _lines(documents: Iterable[tuple[str, str]]) -> str:
    return "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in documents)


def _toml(values: Mapping[str, object]) -> str:
    """TOML of plain values, tables and one list of tables; JSON's values are TOML's too."""
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{_toml(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{key}]]\n{_toml(one)}" for one in value]
        else:
            plain.append(f"{key} = {json.dumps(value)}\n")
    return "".join(plain + tables)
