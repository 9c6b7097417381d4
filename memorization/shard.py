"""Reads one shard, through memory maps: opening it costs nothing, and searching it a few pages."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.errors import TrainingIndexError
from memorization.layout import IndexParameters
from memorization.shard_writer import (
    BAND_KEYS,
    BAND_ROWS,
    KEYS,
    NAME_ENDS,
    NAMES,
    SIGNATURES,
    STARTS,
    SUFFIXES,
    TOKENS,
    WINDOW_FIELDS,
    WINDOWS,
    ShardCounts,
)
from memorization.signatures import Signatures
from memorization.suffix_array import PADDING, Int64, SuffixArray, stored_dtype

_REMEMBERED_NAMES = 4096


class Shard:
    """The documents of one shard, and what was sorted from them."""

    def __init__(
        self, folder: Path, parameters: IndexParameters, vocab_size: int, counts: ShardCounts
    ) -> None:
        """Map the shard's files.

        Raises:
            FileNotFoundError: A file is missing.
            TrainingIndexError: A file has another size than the manifest says.
        """
        self._folder = folder
        documents = counts.documents
        self._starts = self._map(STARTS, np.int64, (documents,))
        names = self._map(NAMES, np.uint8, (counts.name_bytes,))
        ends = self._map(NAME_ENDS, np.int64, (documents,))
        read = functools.partial(_read_name, folder / NAMES, names, ends)
        # The runs of a query often lie in the same documents.
        self._name = functools.lru_cache(_REMEMBERED_NAMES)(read)
        self.suffix_array: SuffixArray | None = None
        if parameters.exact:
            size = counts.tokens + PADDING
            self.suffix_array = SuffixArray(
                self._map(TOKENS, stored_dtype(vocab_size), (size,)),
                self._map(SUFFIXES, np.int32, (size,)),
                # Every search begins here: in memory it takes half a byte for each token.
                np.array(self._map(KEYS, np.uint64, (-(-size // 16),))),
            )
        if parameters.near:
            banding = parameters.banding
            self.windows = self._map(WINDOWS, np.uint32, (counts.windows, WINDOW_FIELDS))
            self.signatures = self._map(SIGNATURES, np.uint32, (counts.windows, banding.num_perm))
            self._band_keys = self._map(BAND_KEYS, np.uint32, (banding.bands, counts.windows))
            self._band_rows = self._map(BAND_ROWS, np.uint32, (banding.bands, counts.windows))

    def document_at(self, positions: Int64) -> tuple[Int64, Int64]:
        """Documents that token positions lie in, and where in those, both int64[positions]."""
        documents = np.searchsorted(self._starts, positions, "right") - 1
        return documents, positions - self._starts[documents]

    def name(self, document: int) -> tuple[str, str, str]:
        """(id, title, source) of a document."""
        return self._name(document)

    def candidates(self, keys: NDArray[np.uint32]) -> Int64:
        """Windows that share a band key with one query window, ascending, int64[windows].

        Args:
            keys: The query window's band keys, uint32[bands].
        """
        found: list[NDArray[np.uint32]] = []
        for band, key in enumerate(keys):
            row = self._band_keys[band]
            first = int(row.searchsorted(key, "left"))
            if first < len(row) and row[first] == key:
                last = int(row.searchsorted(key, "right"))
                found.append(self._band_rows[band, first:last])
        if not found:
            return np.empty(0, np.int64)
        return np.unique(np.concatenate(found)).astype(np.int64)

    def signatures_of(self, windows: Int64) -> Signatures:
        """Signatures of some windows, uint32[windows, num_perm]."""
        return np.asarray(self.signatures[windows])

    def _map(self, name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        path = self._folder / name
        expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        size = path.stat().st_size
        if size != expected:
            raise TrainingIndexError(f"{path} has {size} bytes, and the manifest says {expected}")
        if not expected:
            return np.empty(shape, dtype)
        # A plain array over the map: numpy.memmap's own indexing costs more than the search.
        return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def _read_name(
    path: Path, names: NDArray[np.uint8], ends: Int64, document: int
) -> tuple[str, str, str]:
    begin = int(ends[document - 1]) if document else 0
    line = names[begin : int(ends[document])].tobytes()
    try:
        identifier, title, source = json.loads(line)
    except ValueError as error:
        raise TrainingIndexError(f"{path} is damaged: {error}") from error
    return identifier, title, source
