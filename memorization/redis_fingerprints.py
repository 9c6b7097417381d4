"""Verbatim runs in Redis: fingerprints with their documents and neighbours, without the text.

    …_fingerprints + chunk   the fingerprints themselves; see `memorization.redis_tables`
    …_ngrams + block         a filter of them, which engines fetch once to avoid them

A query takes one round trip for all its k-grams, and one for the documents' names if any matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import redis

from memorization.errors import IndexUnavailableError
from memorization.index import Occurrence, Span
from memorization.ngram_filter import NgramFilter, Words, empty_words, insert
from memorization.redis_store import Generation
from memorization.redis_tables import Records, RecordTable, chunk_bits
from memorization.rolling_hash import kgram_hashes
from memorization.runs import MAX_PLACES, Hits, find_spans
from memorization.suffix_array import ID_SHIFT, Int64, Stored, require_ids
from memorization.winnowing import Winnowing, winnow

_RECORD = np.dtype(
    [
        ("key", "<u8"),
        *((field, "<u4") for field in ("document", "ordinal", "offset", "earliest", "latest")),
    ]
)
_NGRAM_BLOCK_BYTES = 1 << 20
_CHARACTERS_PER_TOKEN = 4
_COMPRESSION = 2  # of corpus files, about: some are compressed and some are not


def fingerprint_bits(winnowing: Winnowing, corpus_bytes: int) -> int:
    """Bits that share fingerprints out; see `redis_tables.chunk_bits`."""
    per_kib = 1024 / _CHARACTERS_PER_TOKEN * 2 / (winnowing.window + 1)
    return chunk_bits(corpus_bytes, per_kib * _COMPRESSION * _RECORD.itemsize)


class FingerprintLayout:
    """Where fingerprints and the filter of them are in Redis."""

    def __init__(self, basename: bytes, winnowing: Winnowing, bits: int) -> None:
        """Lay an index out; `bits` are those of `fingerprint_bits`."""
        self._ngrams = basename + b"_ngrams"
        self.winnowing = winnowing
        self.table = RecordTable(
            name=basename + b"_fingerprints",
            dtype=_RECORD,
            key_bits=winnowing.hash_bits,
            chunk_bits=bits,
            max_equal=MAX_PLACES,
        )

    def records(self, document: int, stored: Stored) -> Records:
        """The fingerprints of a document.

        Args:
            document: Documents before it.
            stored: Its tokens.
        """
        kept, hashes = winnow(stored.astype(np.int64) - ID_SHIFT, self.winnowing)
        records = np.empty(len(kept), _RECORD)
        if len(kept):
            records["key"], records["document"], records["offset"] = hashes, document, kept
            records["ordinal"] = np.arange(len(kept))
            records["earliest"] = np.append(0, kept[:-1] + 1)
            records["latest"] = np.append(kept[1:] + self.winnowing.k - 1, len(stored))
        return records

    def appends(self, records: Records) -> Iterator[tuple[bytes, bytes]]:
        """What fingerprints append, in order."""
        names = self.table.chunks(records["key"])
        for row, name in enumerate(names):
            yield name, records[row].tobytes()

    def write_ngrams(self, client: redis.Redis, fingerprints: int, kept: Iterable[Records]) -> int:
        """Write a filter of what is kept of so many fingerprints; the number of its bytes."""
        words = empty_words(fingerprints)
        for records in kept:
            insert(words, records["key"].astype(np.uint64))
        data = words.tobytes()
        for number, name in enumerate(self._ngram_blocks(len(data))):
            begin = number * _NGRAM_BLOCK_BYTES
            client.set(name, data[begin : begin + _NGRAM_BLOCK_BYTES])
        return len(data)

    def read_ngrams(self, generation: Generation, size: int) -> Words:
        """The filter that was written, of so many bytes.

        Raises:
            SupersededError: Another generation is served now.
            IndexUnavailableError: Redis does not answer, or has lost a part.
        """
        blocks = [generation.ask(("GET", name))[0] for name in self._ngram_blocks(size)]
        data = b"".join(block or b"" for block in blocks)
        if len(data) != size:
            raise IndexUnavailableError(
                f"{generation.where} has {len(data)} of {size} bytes of n-grams: build it again"
            )
        return np.frombuffer(data, np.uint32).reshape(-1, 8)

    def _ngram_blocks(self, size: int) -> list[bytes]:
        blocks = -(-size // _NGRAM_BLOCK_BYTES)
        return [self._ngrams + number.to_bytes(4, "big") for number in range(blocks)]


class RedisFingerprints:
    """Answers verbatim runs as `TrainingIndex` does, and as `FingerprintIndex` would."""

    def __init__(
        self,
        generation: Generation,
        winnowing: Winnowing,
        bits: int,
        *,
        vocab_size: int,
        ngram_bytes: int,
    ) -> None:
        """Read what `FingerprintLayout` lays out, with a filter of so many bytes."""
        self.winnowing = winnowing
        self._generation = generation
        self._layout = FingerprintLayout(generation.basename, winnowing, bits)
        self._vocab_size = vocab_size
        self._ngram_bytes = ngram_bytes

    def longest_matches(
        self, tokens: Sequence[int], min_tokens: int, max_occurrences: int
    ) -> list[Span]:
        """See `FingerprintIndex.longest_matches`.

        Raises:
            TrainingIndexError: A token id lies outside the vocabulary.
            SupersededError: Another generation is served now.
            IndexUnavailableError: Redis does not answer.
        """
        ids = require_ids(tokens, self._vocab_size)
        return find_spans(
            self._hits(ids),
            self.winnowing,
            len(ids),
            self._locate,
            min_tokens=min_tokens,
            max_occurrences=max_occurrences,
        )

    def ngrams(self) -> NgramFilter:
        """Fetch the filter; see `FingerprintIndex.ngrams`.

        Raises:
            SupersededError: Another generation is served now.
            IndexUnavailableError: Redis does not answer, or has lost a part.
        """
        return NgramFilter(
            words=self._layout.read_ngrams(self._generation, self._ngram_bytes),
            ngram=self.winnowing.k,
            hash_bits=self.winnowing.hash_bits,
            guarantee_tokens=self.winnowing.guarantee_tokens,
        )

    def _hits(self, ids: Int64) -> Hits:
        table = self._layout.table
        keys = kgram_hashes(ids, self.winnowing.k) & np.uint64(self.winnowing.hash_mask)
        chunks = self._generation.ask(("MGET", *table.chunks(keys)))[0] if len(keys) else []
        query, records = table.find(chunks, keys)
        fields = ("document", "ordinal", "offset", "earliest", "latest")
        return Hits(query=query, **{field: records[field].astype(np.int64) for field in fields})

    def _locate(self, documents: Int64, offsets: Int64) -> tuple[Occurrence, ...]:
        command = self._generation.names_command(documents.tolist())
        (answers,) = self._generation.ask(command)
        return tuple(
            Occurrence(document=identifier, title=title, source=source, offset=offset)
            for offset, (identifier, title, source) in zip(
                offsets.tolist(), map(self._generation.read_name, answers), strict=True
            )
        )
