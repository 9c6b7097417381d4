"""Near duplicates in Redis, in some 500 bytes for each window.

    …_windows + block           64 windows one after the other: document, first word, words,
                                signature
    …_buckets + band + chunk    which windows have which band key; see `memorization.redis_tables`

A query takes one round trip for the buckets, one for the candidates, and one for the names of the
documents that resemble it, if any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from memorization.errors import IndexUnavailableError
from memorization.index import NearDuplicate
from memorization.layout import IndexParameters
from memorization.redis_store import Generation
from memorization.redis_tables import Records, RecordTable, chunk_bits
from memorization.signatures import Signed, band_keys, make_signer, similarities
from memorization.suffix_array import Int64

# Boilerplate fills a bucket; so many windows of one band key are compared, the corpus's first.
_MAX_WINDOWS = 1024
_BLOCK = 64
_BUCKET = np.dtype([("key", "<u4"), ("window", "<u4")])
_CHARACTERS_PER_WORD = 5.6
_COMPRESSION = 2  # of corpus files, about: some are compressed and some are not


def bucket_bits(parameters: IndexParameters, corpus_bytes: int) -> int:
    """Bits that share the buckets of a band out; see `redis_tables.chunk_bits`."""
    windows_per_kib = 1024 / (_CHARACTERS_PER_WORD * parameters.windows.stride_words)
    return chunk_bits(corpus_bytes, windows_per_kib * _COMPRESSION * _BUCKET.itemsize)


class WindowLayout:
    """Where windows and their buckets are in Redis, and how they look."""

    def __init__(self, basename: bytes, parameters: IndexParameters, bits: int) -> None:
        """Lay an index out; `bits` are those of `bucket_bits`."""
        self._windows = basename + b"_windows"
        self._banding = parameters.banding
        self.record = np.dtype(
            [
                ("document", "<u4"),
                ("first_word", "<u4"),
                ("words", "<u4"),
                ("signature", "<u4", (parameters.banding.num_perm,)),
            ]
        )
        self.buckets = [
            RecordTable(
                name=basename + b"_buckets" + band.to_bytes(2, "big"),
                dtype=_BUCKET,
                key_bits=32,
                chunk_bits=bits,
                max_equal=_MAX_WINDOWS,
            )
            for band in range(parameters.banding.bands)
        ]

    def appends(
        self, first_window: int, document: int, size: int, signed: Signed
    ) -> Iterator[tuple[bytes, bytes]]:
        """What the windows of a document append, in order.

        Args:
            first_window: Windows before it.
            document: Documents before it.
            size: Words of each of its windows.
            signed: Its windows.
        """
        count = len(signed.starts)
        windows = np.empty(count, self.record)
        windows["document"], windows["words"] = document, size
        windows["first_word"], windows["signature"] = signed.starts, signed.signatures
        keys = band_keys(signed.signatures, self._banding)
        entries = np.empty(keys.shape, _BUCKET)
        entries["key"] = keys
        entries["window"] = np.arange(first_window, first_window + count)[:, None]
        names = [table.chunks(keys[:, band]) for band, table in enumerate(self.buckets)]
        for row in range(count):
            yield self.block((first_window + row) // _BLOCK), windows[row].tobytes()
            for band, name in enumerate(names):
                yield name[row], entries[row, band].tobytes()

    def block(self, number: int) -> bytes:
        """Name of a block of windows."""
        return self._windows + number.to_bytes(4, "big")

    def blocks(self, windows: int) -> list[bytes]:
        """Names of all blocks of so many windows."""
        return [self.block(number) for number in range(-(-windows // _BLOCK))]

    def range_command(self, window: int) -> tuple[Any, ...]:
        """Asks for a window."""
        size = self.record.itemsize
        begin = window % _BLOCK * size
        return ("GETRANGE", self.block(window // _BLOCK), begin, begin + size - 1)


class RedisWindows:
    """Answers near duplicates as `TrainingIndex` does."""

    def __init__(self, generation: Generation, parameters: IndexParameters, bits: int) -> None:
        """Read what `WindowLayout` with the same arguments lays out."""
        self._generation = generation
        self._parameters = parameters
        self._layout = WindowLayout(generation.basename, parameters, bits)
        self._signer = make_signer(
            parameters.signature, parameters.windows, parameters.banding.num_perm
        )

    def near_duplicates(self, text: str, min_similarity: float) -> list[NearDuplicate]:
        """See `TrainingIndex.near_duplicates`; at most 1024 windows of a band key are compared.

        Raises:
            SupersededError: Another generation is served now.
            IndexUnavailableError: Redis does not answer.
        """
        signed = self._signer.sign(text)
        queries, windows = self._candidates(signed)
        if not len(windows):
            return []
        unique, places = np.unique(windows, return_inverse=True)
        records = self._look_up(unique)
        best: dict[int, tuple[float, int]] = {}
        for query, start in enumerate(signed.starts.tolist()):
            rows = places[queries == query]
            scores = similarities(records["signature"][rows], signed.signatures[query])
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
                if score >= min_similarity and score > best.get(row, (-1.0, 0))[0]:
                    best[row] = (score, start)
        return self._named(records, best)

    def _candidates(self, signed: Signed) -> tuple[Int64, Int64]:
        """Pairs of a query window and a corpus window that share a band key, each once."""
        empty = np.empty(0, np.int64)
        if not len(signed.starts):
            return empty, empty
        columns = band_keys(signed.signatures, self._parameters.banding).T
        tables = self._layout.buckets
        names = [table.chunks(keys) for table, keys in zip(tables, columns, strict=True)]
        (chunks,) = self._generation.ask(("MGET", *(name for band in names for name in band)))
        per_band = len(signed.starts)
        pairs = [np.empty((0, 2), np.int64)]
        for band, (table, keys) in enumerate(zip(tables, columns, strict=True)):
            some = chunks[band * per_band : (band + 1) * per_band]
            queries, entries = table.find(some, keys)
            pairs.append(np.stack([queries, entries["window"].astype(np.int64)], axis=1))
        queries, windows = np.unique(np.concatenate(pairs), axis=0).T
        return queries, windows

    def _look_up(self, windows: Int64) -> Records:
        answers = self._generation.ask(*map(self._layout.range_command, windows.tolist()))
        if any(len(found) != self._layout.record.itemsize for found in answers):
            raise IndexUnavailableError(
                f"{self._generation.where} has lost windows: build it again"
            )
        return np.frombuffer(b"".join(answers), self._layout.record)

    def _named(self, records: Records, best: dict[int, tuple[float, int]]) -> list[NearDuplicate]:
        if not best:
            return []
        documents = [int(records["document"][row]) for row in best]
        (answers,) = self._generation.ask(self._generation.names_command(documents))
        found = []
        for (row, (similarity, query_word)), answer in zip(best.items(), answers, strict=True):
            identifier, title, source = self._generation.read_name(answer)
            found.append(
                NearDuplicate(
                    document=identifier,
                    title=title,
                    source=source,
                    first_word=int(records["first_word"][row]),
                    query_word=query_word,
                    words=int(records["words"][row]),
                    similarity=similarity,
                )
            )
        return sorted(found, key=lambda near: (-near.similarity, near.source, near.document))
