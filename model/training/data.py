"""Deterministic, random-access training batches: any step's batch can be made again at any time.

Documents are put in a seeded order, each closed by the end-of-document token, joined and cut into
windows, never padded (PaLM, section 5). Windows are shuffled by grain; the batch of a step is a
pure function of (seed, stage, step), so a run resumes without any iterator state.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grain
import numpy as np
from numpy.typing import NDArray

from model.errors import ConfigError
from model.tokenizer import SentencePieceTokenizer

if TYPE_CHECKING:
    from model.training.config import DataConfig, TrainingConfig

Tokens: TypeAlias = NDArray[np.int32]


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of each document of a `.jsonl` or `.jsonl.xz` file.

    Raises:
        ConfigError: The file is missing or damaged, or a line is not an object with string `id`
            and `text`.
    """
    if not path.is_file():
        raise ConfigError(f"training data {path} does not exist")
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _document(line, f"{path}, line {number}")
    except (lzma.LZMAError, EOFError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error


def _document(line: bytes, where: str) -> tuple[str, str]:
    try:
        record = json.loads(line.decode("utf-8"))
        identifier, text = record["id"], record["text"]
        if not (isinstance(identifier, str) and isinstance(text, str)):
            raise TypeError("both must be strings")
        text.encode("utf-8")  # JSON can spell lone surrogates, which no tokenizer takes
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: not an object with `id` and `text` ({error!r})") from error
    return identifier, text


def document_hash(text: str) -> str:
    """SHA-256 of a document's UTF-8 bytes, as listed beside a shipped model."""
    return hashlib.sha256(text.encode()).hexdigest()


def tokenize_file(path: Path, tokenizer_path: Path, cache_dir: Path) -> tuple[Tokens, Tokens]:
    """Tokens of every document of `path`, cached on disk.

    Returns:
        The documents' tokens one after the other, int32 memory map [tokens], and the end of each
        document in it, int64[documents].
    """
    digest = hashlib.sha256()
    for source in (path, tokenizer_path):
        if not source.is_file():
            raise ConfigError(f"training data {source} does not exist")
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    folder = cache_dir / digest.hexdigest()[:16]
    if not (folder / "ends.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = SentencePieceTokenizer.from_file(tokenizer_path)
        eod = tokenizer.eos_ids[0]
        pieces = [
            np.asarray([*tokenizer.encode(text), eod], np.int32) for _, text in read_documents(path)
        ]
        if not pieces:
            raise ConfigError(f"training data {path} holds no document")
        np.save(folder / "tokens.npy", np.concatenate(pieces))
        # Written last: its presence says that the tokens are whole.
        np.save(folder / "ends.npy.tmp.npy", np.cumsum([len(piece) for piece in pieces]))
        (folder / "ends.npy.tmp.npy").rename(folder / "ends.npy")
    return np.load(folder / "tokens.npy", mmap_mode="r"), np.load(folder / "ends.npy")


def pack_documents(config: DataConfig, seed: int) -> Tokens:
    """All training documents in seeded order, int32[tokens], each closed by end-of-document."""
    documents: list[Tokens] = []
    repeats = config.repeats or (1,) * len(config.train)
    for name, times in zip(config.train, repeats, strict=True):
        tokens, ends = tokenize_file(Path(name), Path(config.tokenizer), Path(config.cache_dir))
        documents += np.split(np.asarray(tokens), ends[:-1]) * times
    order = np.random.default_rng(seed).permutation(len(documents))
    return np.concatenate([documents[index] for index in order])


class _Windows:
    """A grain data source: window i holds tokens [i·T, i·T + T], one more than the inputs."""

    def __init__(self, tokens: Tokens, seq_len: int) -> None:
        self._tokens = tokens
        self._seq_len = seq_len

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self._seq_len

    def __getitem__(self, index: Any) -> Tokens:
        start = int(index) * self._seq_len
        return self._tokens[start : start + self._seq_len + 1]


class Batches:
    """The batch of every step of a run."""

    def __init__(self, config: TrainingConfig, tokens: Tokens) -> None:
        """Prepare one shuffled view of `tokens` for each stage.

        Raises:
            ConfigError: There is less text than one batch.
        """
        self._config = config
        self._stages: list[grain.MapDataset[Tokens]] = []
        for index, stage in enumerate(config.stages):
            windows = _Windows(tokens, stage.seq_len)
            if len(windows) < stage.batch_size:
                raise ConfigError(
                    f"{len(tokens)} training tokens make {len(windows)} windows of "
                    f"{stage.seq_len} tokens, fewer than stages.batch_size={stage.batch_size}"
                )
            shuffled = grain.MapDataset.source(windows).seed(config.seed + index).shuffle().repeat()
            self._stages.append(shuffled.batch(stage.batch_size))

    def at(self, step: int, skips: Sequence[tuple[int, int]] = ()) -> Tokens:
        """The batch of `step`, int32[batch, seq_len + 1].

        Args:
            step: Step of the run, from 0.
            skips: (from step, batches skipped there) for each loss spike so far.
        """
        index, stage = self._config.stage_at(step)
        # Also past the stage of `first`: the batches around a spike may lie in the next one.
        skipped = sum(count for first, count in skips if first <= step)
        batch: Tokens = np.asarray(self._stages[index][step - stage.step + skipped])
        return batch
