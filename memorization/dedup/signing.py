"""Reads a corpus once, and keeps of every document what tells duplicates: hashes, not text."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.corpus import Document, read_corpus
from memorization.dedup.growing_files import GrowingFiles
from memorization.dedup.parameters import DedupParameters
from memorization.errors import CorpusError
from memorization.layout import read_json, write_json
from memorization.rolling_hash import UInt64
from memorization.shingles import shingle_hashes
from memorization.signatures import Signatures, sign_set

_SIGNATURES = "signatures.bin"
_SHINGLES = "shingles.bin"
_SHINGLE_ENDS = "shingle-ends.bin"
_TEXTS = "texts.bin"
_NAMES = "names.jsonl"
_FILES = (_SIGNATURES, _SHINGLES, _SHINGLE_ENDS, _TEXTS, _NAMES)
_STATE = "state.json"
_TEXT_FIELDS = 3  # of `texts.bin`, 64 bits each: two halves of a hash, and characters
_CHECKPOINT_CHARACTERS = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignedCorpus:
    """What is kept of every document; the arrays are memory maps.

    Attributes:
        signatures: MinHash of its shingles, uint32[documents, num_perm]; 0 without a shingle.
        shingle_ends: One past its last shingle, int64[documents].
        shingles: Hashes of its different shingles, ascending, uint64[shingles].
        text_hashes: Of its text, uint64[documents, 2].
        characters: Of its text, int64[documents].
        folder: Where the names are.
    """

    signatures: Signatures
    shingle_ends: NDArray[np.int64]
    shingles: UInt64
    text_hashes: UInt64
    characters: NDArray[np.int64]
    folder: Path

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.shingle_ends)

    def shingles_of(self, document: int) -> UInt64:
        """Shingles of a document, ascending, uint64[shingles]."""
        begin = self.shingle_ends[document - 1] if document else 0
        return self.shingles[begin : self.shingle_ends[document]]

    def names(self) -> list[tuple[str, str, str]]:
        """(id, title, source) of every document."""
        with (self.folder / _NAMES).open(encoding="utf-8") as lines:
            return [tuple(json.loads(line)) for line in lines]


def sign_corpus(
    files: Sequence[Path],
    folder: Path,
    parameters: DedupParameters,
    *,
    on_characters: Callable[[int], None] = lambda _: None,
) -> SignedCorpus:
    """Sign every document of a corpus; stopped at any moment, the same call goes on.

    Args:
        files: Of `corpus_files`.
        folder: Where the signatures are kept; of this corpus and these parameters alone.
        parameters: What counts as a duplicate.
        on_characters: Told the characters that are done, those of an earlier part first.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
        OSError: The folder cannot be written.
    """
    path = folder / _STATE
    state: dict[str, Any] = {"documents": 0, "characters": 0, "bytes": {}, "is_complete": False}
    if path.exists():
        state = read_json(path)
    on_characters(state["characters"])
    if not state["is_complete"]:
        with GrowingFiles(folder, _FILES, state["bytes"]) as out:
            _sign_rest(files, out, state, path, parameters, on_characters)
    if not state["documents"]:
        raise CorpusError(f"the corpus has no document: {', '.join(map(str, files))}")
    return _opened(folder, state["documents"], parameters.num_perm)


def _sign_rest(
    files: Sequence[Path],
    out: GrowingFiles,
    state: dict[str, Any],
    path: Path,
    parameters: DedupParameters,
    on_characters: Callable[[int], None],
) -> None:
    shingles = state["bytes"].get(_SHINGLES, 0) // 8
    since = 0
    for document in itertools.islice(read_corpus(files), state["documents"], None):
        shingles += _append(document, out, shingles, parameters)
        state["documents"] += 1
        state["characters"] += len(document.text)
        since += len(document.text)
        if since >= _CHECKPOINT_CHARACTERS:
            state["bytes"] = out.checkpoint()
            write_json(path, state)
            since = 0
        on_characters(len(document.text))
    state["bytes"], state["is_complete"] = out.checkpoint(), True
    write_json(path, state)


def _append(
    document: Document, out: GrowingFiles, shingles: int, parameters: DedupParameters
) -> int:
    """Append what is kept of a document; returns the number of its shingles."""
    found = np.empty(0, np.uint64)
    signature = np.zeros(parameters.num_perm, np.uint32)
    if parameters.near:
        _, hashes = shingle_hashes(document.text, parameters.shingle_words)
        found = np.unique(hashes)
        if found.size:
            signature = sign_set(found, parameters.num_perm)
    digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
    name = [document.id, document.title, document.source]
    out.write(_SIGNATURES, signature.tobytes())
    out.write(_SHINGLES, found.tobytes())
    out.write(_SHINGLE_ENDS, np.int64(shingles + len(found)).tobytes())
    out.write(_TEXTS, digest + np.uint64(len(document.text)).tobytes())
    out.write(_NAMES, json.dumps(name).encode() + b"\n")
    return len(found)


def _opened(folder: Path, documents: int, num_perm: int) -> SignedCorpus:
    def mapped(name: str, dtype: Any) -> NDArray[Any]:
        path = folder / name
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)

    texts = mapped(_TEXTS, np.uint64).reshape(documents, _TEXT_FIELDS)
    return SignedCorpus(
        signatures=mapped(_SIGNATURES, np.uint32).reshape(documents, num_perm),
        shingle_ends=mapped(_SHINGLE_ENDS, np.int64),
        shingles=mapped(_SHINGLES, np.uint64),
        text_hashes=texts[:, :2],
        characters=texts[:, 2].astype(np.int64),
        folder=folder,
    )
