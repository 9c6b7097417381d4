"""Tables in Redis: fixed-size records, found by a key, many in one string.

A string of Redis costs some 80 bytes before its first byte, so records share strings: those whose
keys have the same high bits. While a table is built records are appended as they come; at the end
each string is sorted. A query reads the few strings that its keys fall in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import redis
from numpy.typing import NDArray

from memorization.suffix_array import Int64

Records: TypeAlias = NDArray[Any]
"""Of a table's dtype, [records]."""

_BATCH = 512
_STRING_BYTES = 512
_MIN_BITS, _MAX_BITS = 4, 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordTable:
    """Where a table's records are, and how they look.

    Attributes:
        name: What the names of its strings begin with.
        dtype: Of a record; its field `key` is what it is found by.
        key_bits: Bits of a key.
        chunk_bits: High bits of a key that choose the string.
        max_equal: Most records with one key that are kept, the first in the order of insertion.
    """

    name: bytes
    dtype: np.dtype[Any]
    key_bits: int
    chunk_bits: int
    max_equal: int

    def chunks(self, keys: NDArray[Any]) -> list[bytes]:
        """Names of the strings that keys fall in."""
        numbers = keys.astype(np.uint64) >> np.uint64(self.key_bits - self.chunk_bits)
        return [self._chunk(number) for number in numbers.tolist()]

    def find(self, chunks: Sequence[bytes | None], keys: NDArray[Any]) -> tuple[Int64, Records]:
        """The records of keys.

        Args:
            chunks: What Redis holds under `self.chunks(keys)`.
            keys: Unsigned integers [keys].

        Returns:
            For each record the place of its key in `keys`, int64[records], and the records.
        """
        places: list[int] = []
        found: list[Records] = []
        for place, (chunk, key) in enumerate(zip(chunks, keys, strict=True)):
            if not chunk:
                continue
            records = np.frombuffer(chunk, self.dtype)
            same = records[records["key"] == key]
            if len(same):
                found.append(same)
                places += [place] * len(same)
        if not found:
            return np.empty(0, np.int64), np.empty(0, self.dtype)
        return np.array(places, np.int64), np.concatenate(found)

    def sort(self, client: redis.Redis) -> Iterator[Records]:
        """Put every string in its final order and size; doing it again changes nothing.

        Yields:
            The records that are kept, string by string.
        """
        names = [self._chunk(number) for number in range(1 << self.chunk_bits)]
        for at in range(0, len(names), _BATCH):
            some = names[at : at + _BATCH]
            answers: Any = client.mget(some)
            pipeline = client.pipeline(transaction=False)
            for name, chunk in zip(some, answers, strict=True):
                if chunk:
                    records = self._sorted(np.frombuffer(chunk, self.dtype))
                    # Also where nothing changes: appending has left room behind a string.
                    pipeline.set(name, records.tobytes())
                    yield records
            pipeline.execute()

    def _sorted(self, records: Records) -> Records:
        records = records[np.argsort(records["key"], kind="stable")]
        if len(records) > self.max_equal:
            # One is too many if the record so many places before it has the same key.
            behind = records["key"][self.max_equal :] == records["key"][: -self.max_equal]
            records = records[np.concatenate([np.ones(self.max_equal, np.bool_), ~behind])]
        return records

    def _chunk(self, number: int) -> bytes:
        return self.name + number.to_bytes(3, "big")


def chunk_bits(corpus_bytes: int, bytes_per_kib: float) -> int:
    """Bits that share a table out in strings of about `_STRING_BYTES`.

    Args:
        corpus_bytes: Size of the corpus's files.
        bytes_per_kib: About how many bytes of records a KiB of them gives.
    """
    strings = int(corpus_bytes / 1024 * bytes_per_kib / _STRING_BYTES)
    return min(_MAX_BITS, max(_MIN_BITS, strings.bit_length()))
