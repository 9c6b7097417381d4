"""Writes one shard: first what grows with each document, then what is sorted from it.

Growing files are only appended to, so a checkpoint is their lengths, and going on after a stop is
cutting them back to those.
"""

from __future__ import annotations

import dataclasses
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memorization.corpus import Document
from memorization.errors import IndexBuildError
from memorization.layout import IndexParameters
from memorization.lsh import Banding
from memorization.signatures import Signer, hash_rows
from memorization.suffix_array import (
    PADDING,
    SEPARATOR,
    Stored,
    build_keys,
    build_suffix_array,
    stored_dtype,
)

TOKENS = "tokens.bin"
STARTS = "starts.bin"
NAMES = "names.jsonl"
NAME_ENDS = "name-ends.bin"
WINDOWS = "windows.bin"
SIGNATURES = "signatures.bin"
GROWING = (TOKENS, STARTS, NAMES, NAME_ENDS, WINDOWS, SIGNATURES)

SUFFIXES = "suffixes.bin"
KEYS = "keys.bin"
BAND_KEYS = "band-keys.bin"
BAND_ROWS = "band-rows.bin"

WINDOW_FIELDS = 3
"""Fields of a window, uint32 each: document in the shard, first word, words."""

# Longest run of bytes that libdivsufsort's 32-bit form sorts, with room for the padding.
_MAX_TOKEN_BYTES = (1 << 31) - 1024


@dataclasses.dataclass
class ShardCounts:
    """How much a shard holds so far."""

    documents: int = 0
    tokens: int = 0
    windows: int = 0
    name_bytes: int = 0


class ShardWriter:
    """Appends documents to a shard.

    Every method may raise OSError, when the disk is full among others; after that the shard goes
    on from its last checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        parameters: IndexParameters,
        vocab_size: int,
        signer: Signer | None,
        *,
        checkpoint: dict[str, Any] | None,
    ) -> None:
        """Open the shard's files and cut them back to a checkpoint, or empty them."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._parameters = parameters
        self._dtype = stored_dtype(vocab_size)
        self._signer = signer
        lengths = checkpoint["bytes"] if checkpoint else {}
        self.counts = ShardCounts(**(checkpoint["counts"] if checkpoint else {}))
        self._files: dict[str, IO[bytes]] = {}
        for name in GROWING:
            file = (folder / name).open("ab")
            self._files[name] = file
            file.truncate(lengths.get(name, 0))
            file.seek(0, os.SEEK_END)

    def append(self, document: Document, stored: Stored) -> None:
        """Add a document and its stored tokens."""
        counts = self.counts
        if (counts.tokens + len(stored) + PADDING) * self._dtype.itemsize > _MAX_TOKEN_BYTES:
            raise IndexBuildError(
                f"document {document.id!r} of {document.source} has {len(stored)} tokens, more "
                f"than a shard can hold ({_MAX_TOKEN_BYTES // self._dtype.itemsize})"
            )
        name = json.dumps([document.id, document.title, document.source], ensure_ascii=False)
        line = name.encode() + b"\n"
        counts.name_bytes += len(line)
        self._write(NAMES, line)
        self._write(NAME_ENDS, np.int64(counts.name_bytes).tobytes())
        self._write(STARTS, np.int64(counts.tokens).tobytes())
        if self._parameters.exact:
            self._write(TOKENS, stored.astype(self._dtype).tobytes())
            self._write(TOKENS, np.array(SEPARATOR, self._dtype).tobytes())
        if self._signer is not None:
            self._append_windows(document.text, self._signer)
        counts.documents += 1
        counts.tokens += len(stored) + 1

    def checkpoint(self) -> dict[str, Any]:
        """Flush everything to disk; what the constructor takes to go on from here."""
        lengths = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            lengths[name] = file.tell()
        return {"bytes": lengths, "counts": dataclasses.asdict(self.counts)}

    def complete(self) -> ShardCounts:
        """Flush and close the files: no document will come any more, and `sort_shard` may."""
        if self._parameters.exact:
            self._write(TOKENS, np.full(PADDING, SEPARATOR, self._dtype).tobytes())
        self.checkpoint()
        self.close()
        return self.counts

    def close(self) -> None:
        """Close the files; what was not checkpointed may be lost."""
        for file in self._files.values():
            file.close()

    def _append_windows(self, text: str, signer: Signer) -> None:
        words, starts, signatures = signer.sign(text)
        if not len(starts):
            return
        rows = np.empty((len(starts), WINDOW_FIELDS), np.uint32)
        rows[:, 0] = self.counts.documents
        rows[:, 1] = starts
        rows[:, 2] = min(self._parameters.windows.window_words, words)
        self._write(WINDOWS, rows.tobytes())
        self._write(SIGNATURES, signatures.tobytes())
        self.counts.windows += len(starts)

    def _write(self, name: str, data: bytes) -> None:
        self._files[name].write(data)


def sort_shard(
    folder: Path, parameters: IndexParameters, vocab_size: int, counts: ShardCounts
) -> None:
    """Write what a search needs of a complete shard; the same bytes whenever it is called.

    Raises:
        OSError: A file cannot be read or written.
    """
    pending: list[Future[None]] = []
    # The suffix sort leaves Python's lock to the bands.
    with ThreadPoolExecutor(1, "sort-bands") as pool:
        if parameters.near:
            pending.append(pool.submit(_sort_bands, folder, parameters.banding, counts.windows))
        if parameters.exact:
            stored = np.fromfile(folder / TOKENS, stored_dtype(vocab_size))
            suffixes = build_suffix_array(stored)
            _save(folder / SUFFIXES, suffixes)
            _save(folder / KEYS, build_keys(stored, suffixes))
        for bands in pending:
            bands.result()


def _sort_bands(folder: Path, banding: Banding, windows: int) -> None:
    """For each band the windows' keys in ascending order, and whose they are."""
    signatures = np.fromfile(folder / SIGNATURES, np.uint32).reshape(windows, banding.num_perm)
    keys, rows = (np.empty((banding.bands, windows), np.uint32) for _ in range(2))
    for band in range(banding.bands):
        values = signatures[:, band * banding.rows : (band + 1) * banding.rows]
        # A key and its row are one number: all are different, and their order is one.
        packed = hash_rows(values).astype(np.uint64) << np.uint64(32)
        packed |= np.arange(windows, dtype=np.uint64)
        packed.sort()
        keys[band] = packed >> np.uint64(32)
        rows[band] = packed.astype(np.uint32)
    _save(folder / BAND_KEYS, keys)
    _save(folder / BAND_ROWS, rows)


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        os.fsync(file.fileno())
