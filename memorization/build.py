"""Builds an index on disk: streamed, resumable, and switched to when it is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from memorization.corpus import corpus_files, read_corpus
from memorization.encode import encode_documents
from memorization.errors import CorpusError, IndexBuildError
from memorization.layout import (
    CURRENT,
    MANIFEST,
    VERSION,
    IndexParameters,
    generation_name,
    read_json,
    write_json,
)
from memorization.ngram_file import write_ngrams
from memorization.shard_writer import ShardCounts, ShardWriter, sort_shard
from memorization.signatures import make_signer
from memorization.tokenizer import IndexTokenizer, tokenizer_identity

_STATE = "state.json"
_CHECKPOINT_CHARACTERS = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build made.

    Attributes:
        generation: Folder of the new index.
        documents: Documents in it.
        tokens: Tokens in it, separators included.
        windows: Windows in it.
        characters: Characters of text.
        bytes: Size of its files.
        was_complete: Whether it stood there already, from the same corpus and parameters.
    """

    generation: Path
    documents: int
    tokens: int
    windows: int
    characters: int
    bytes: int
    was_complete: bool


def build_index(
    corpus: Sequence[Path],
    tokenizer: IndexTokenizer,
    out: Path,
    parameters: IndexParameters | None = None,
    *,
    on_characters: Callable[[int], None] = lambda _: None,
    on_phase: Callable[[str], None] = lambda _: None,
) -> BuildResult:
    """Index a corpus in the folder `out`.

    Stopped at any moment, the same call goes on from the last checkpoint. An index that `out` held
    before is served until the new one is whole. The same corpus, tokenizer and parameters give
    the same bytes.

    Args:
        corpus: Files and folders; see `memorization.corpus`.
        tokenizer: Whose ids are indexed.
        out: Folder of the index.
        parameters: What is indexed, and how.
        on_characters: Told the characters that are done, those of an earlier part first.
        on_phase: Told what is being done, for people.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
        IndexBuildError: The folder cannot be written, or another build writes it.
    """
    parameters = parameters or IndexParameters()
    files = corpus_files(corpus)
    name = generation_name(files, tokenizer_identity(tokenizer), tokenizer.vocab_size, parameters)
    with _writable(out), _locked(out):
        if not (out / name / MANIFEST).exists():
            part = out / f"{name}.part"
            if not (part / MANIFEST).exists():
                _Build(part, tokenizer, parameters, on_characters, on_phase).run(files)
            (part / _STATE).unlink(missing_ok=True)
            part.rename(out / name)
            was_complete = False
        else:
            was_complete = True
        write_json(out / CURRENT, {"generation": name})
        _remove_others(out, name)
    manifest = read_json(out / name / MANIFEST)
    return BuildResult(
        generation=out / name,
        was_complete=was_complete,
        characters=manifest["characters"],
        bytes=sum(path.stat().st_size for path in (out / name).rglob("*") if path.is_file()),
        **{
            field: sum(shard[field] for shard in manifest["shards"])
            for field in ("documents", "tokens", "windows")
        },
    )


class _Build:
    """One build's state: the complete shards, how many of them are sorted, and the open one."""

    def __init__(
        self,
        folder: Path,
        tokenizer: IndexTokenizer,
        parameters: IndexParameters,
        on_characters: Callable[[int], None],
        on_phase: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._parameters = parameters
        self._on_characters = on_characters
        self._on_phase = on_phase
        self._signer = (
            make_signer(parameters.signature, parameters.windows, parameters.banding.num_perm)
            if parameters.near
            else None
        )
        self._sorter = ThreadPoolExecutor(1, "sort-shard")
        self._sorting: tuple[int, Future[None]] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._state = read_json(folder / _STATE)
            return
        self._state = {"documents": 0, "characters": 0, "shards": [], "sorted": 0, "open": None}

    def run(self, files: Sequence[Path]) -> None:
        """Index what is not indexed yet, and write the manifest."""
        # One shard is sorted while the next is read.
        with self._sorter:
            for number in range(self._state["sorted"], len(self._state["shards"])):
                self._sort(number)
            self._read(files)
            self._finish_sorting()
        self._remove_begun()
        self._write_ngrams()
        self._write_manifest()

    def _read(self, files: Sequence[Path]) -> None:
        state = self._state
        self._on_characters(state["characters"])
        documents = itertools.islice(read_corpus(files), state["documents"], None)
        writer = self._writer(state["open"])
        since = 0
        try:
            for document, stored in encode_documents(documents, self._tokenizer):
                full = writer.counts.tokens + len(stored) > self._parameters.shard_tokens
                if full and writer.counts.documents:
                    self._complete(writer)
                    writer, since = self._writer(None), 0
                writer.append(document, stored)
                state["documents"] += 1
                state["characters"] += len(document.text)
                since += len(document.text)
                if since >= _CHECKPOINT_CHARACTERS:
                    self._save(writer.checkpoint())
                    since = 0
                self._on_characters(len(document.text))
            if not state["documents"]:
                raise CorpusError(f"the corpus has no document: {', '.join(map(str, files))}")
            if writer.counts.documents:
                self._complete(writer)
        finally:
            writer.close()

    def _folder_of(self, number: int) -> Path:
        return self._folder / f"shard-{number:05}"

    def _writer(self, checkpoint: dict[str, Any] | None) -> ShardWriter:
        return ShardWriter(
            self._folder_of(len(self._state["shards"])),
            self._parameters,
            self._tokenizer.vocab_size,
            self._signer,
            checkpoint=checkpoint,
        )

    def _complete(self, writer: ShardWriter) -> None:
        self._state["shards"].append(dataclasses.asdict(writer.complete()))
        self._save(None)
        self._sort(len(self._state["shards"]) - 1)

    def _sort(self, number: int) -> None:
        """Begin to sort a shard, once the one before is done: memory holds a single sort."""
        self._finish_sorting()
        counts = ShardCounts(**self._state["shards"][number])
        vocab_size = self._tokenizer.vocab_size
        self._sorting = (
            number,
            self._sorter.submit(
                sort_shard, self._folder_of(number), self._parameters, vocab_size, counts
            ),
        )

    def _finish_sorting(self) -> None:
        if self._sorting is None:
            return
        number, sorting = self._sorting
        if not sorting.done():
            self._on_phase(f"sorting shard {number}")
        sorting.result()
        self._sorting = None
        # Kept with the next checkpoint; sorting a shard again does no harm.
        self._state["sorted"] = number + 1
        self._on_phase("reading")

    def _save(self, checkpoint: dict[str, Any] | None) -> None:
        self._state["open"] = checkpoint
        write_json(self._folder / _STATE, self._state)

    def _remove_begun(self) -> None:
        # A build that was stopped right after a shard may have begun a folder for no document.
        for folder in self._folder.glob("shard-*"):
            if int(folder.name[6:]) >= len(self._state["shards"]):
                shutil.rmtree(folder)

    def _write_ngrams(self) -> None:
        if not self._parameters.ngram:
            return
        self._on_phase("filter of n-grams")
        write_ngrams(
            self._folder,
            sorted(self._folder.glob("shard-*")),
            self._parameters.ngram,
            tokens=sum(shard["tokens"] for shard in self._state["shards"]),
            vocab_size=self._tokenizer.vocab_size,
        )

    def _write_manifest(self) -> None:
        write_json(
            self._folder / MANIFEST,
            {
                "version": VERSION,
                "tokenizer": tokenizer_identity(self._tokenizer),
                "vocab_size": self._tokenizer.vocab_size,
                "parameters": self._parameters.to_dict(),
                "characters": self._state["characters"],
                "shards": self._state["shards"],
            },
        )


@contextlib.contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says what to do."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room there and " if full else ""
        raise IndexBuildError(
            f"cannot write the index {out}: {error.strerror or error}; what is finished is kept: "
            f"{advice}run the same command again"
        ) from error


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexBuildError(f"another process is building the index {out}") from None
        lock.write(f"{os.getpid()}\n")
        yield


def _remove_others(out: Path, name: str) -> None:
    """Remove older generations, and builds that other parameters left unfinished."""
    for folder in out.glob("g-*"):
        if folder.name != name:
            shutil.rmtree(folder)
