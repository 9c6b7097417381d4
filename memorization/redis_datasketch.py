"""Near duplicates in Redis, in the layout of datasketch's `MinHashLSH`.

With signatures of datasketch's kind, plain datasketch queries what is built here and the other way
round:

    MinHashLSH(num_perm=…, params=(bands, rows), prepickle=False, storage_config={
        "type": "redis", "basename": b"NAME:GENERATION", "redis": {…}})

A query takes two round trips: one for all buckets of all windows, one for the candidates' band
values, which are their signatures, and documents. datasketch takes one for each band. Its layout
takes some 7.5 KB for each window, `memorization.redis_windows` a fifteenth of that.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Sequence

import numpy as np
import redis
from numpy.typing import NDArray

from memorization.errors import TrainingIndexError
from memorization.index import NearDuplicate
from memorization.layout import IndexParameters
from memorization.lsh import Banding
from memorization.redis_store import Generation
from memorization.signatures import Signatures, Signed, make_signer

# A key names document, first word and words of a window; the document's name stands apart.
_KEY = re.compile(rb"(\d+):(\d+):(\d+)")

# Inserts windows as datasketch does, in one call: KEYS[1] is the basename, ARGV[1] the number of
# bands, then for each window its key and the values of its bands. Inserting one again changes
# nothing, so a build that was cut off may repeat its last batch.
_INSERT = """
local base, bands = KEYS[1], tonumber(ARGV[1])
local names = {}
for band = 1, bands do
  names[band] = base .. '_bucket_' .. string.char(math.floor((band - 1) / 256), (band - 1) % 256)
end
for at = 2, #ARGV, bands + 1 do
  local key = ARGV[at]
  local list = base .. '_keys' .. key
  redis.call('HSET', base .. '_keys', key, list)
  redis.call('DEL', list)
  for band = 1, bands do
    local value = ARGV[at + band]
    local bucket = names[band] .. value
    redis.call('RPUSH', list, value)
    redis.call('HSET', names[band], value, bucket)
    redis.call('SADD', bucket, key)
  end
end
"""
_BATCH_WINDOWS = 256


class DatasketchWriter:
    """Inserts windows, many in a call."""

    def __init__(self, client: redis.Redis, basename: bytes, banding: Banding) -> None:
        """Prepare for an index of this basename."""
        self._basename = basename
        self._banding = banding
        self._insert = client.register_script(_INSERT)
        self._waiting: list[bytes] = []
        self._count = 0

    def add(self, document: int, size: int, signed: Signed) -> None:
        """Insert the windows of a document, perhaps a little later.

        Args:
            document: Documents before it.
            size: Words of each of its windows.
            signed: Its windows.
        """
        bands = band_bytes(signed.signatures, self._banding)
        for start, values in zip(signed.starts.tolist(), bands, strict=True):
            self._waiting += (b"%d:%d:%d" % (document, start, size), *values)
            self._count += 1
            if self._count >= _BATCH_WINDOWS:
                self.flush()

    def flush(self) -> None:
        """Insert what is waiting."""
        if self._count:
            self._insert(keys=[self._basename], args=[self._banding.bands, *self._waiting])
            self._waiting, self._count = [], 0


class DatasketchWindows:
    """Answers near duplicates as `TrainingIndex` does."""

    def __init__(
        self, generation: Generation, parameters: IndexParameters, *, is_pickled: bool = False
    ) -> None:
        """Attach to buckets that exist.

        Args:
            generation: Whose basename is `storage_config["basename"]` in datasketch.
            parameters: Windows, banding and kind of signature that the index was made with.
            is_pickled: Whether keys are pickled, datasketch's default; only pickled strings,
                bytes, numbers and tuples of them are read, and nothing is executed.
        """
        self._generation = generation
        self._banding = parameters.banding
        self._is_pickled = is_pickled
        self._buckets = [
            generation.basename + b"_bucket_" + band.to_bytes(2, "big")
            for band in range(parameters.banding.bands)
        ]
        self._signer = make_signer(
            parameters.signature, parameters.windows, parameters.banding.num_perm
        )

    def near_duplicates(self, text: str, min_similarity: float) -> list[NearDuplicate]:
        """See `TrainingIndex.near_duplicates`.

        Raises:
            SupersededError: Another generation is served now.
            IndexUnavailableError: Redis does not answer.
        """
        _, starts, signatures = self._signer.sign(text)
        candidates = self._candidates(signatures)
        keys = list(dict.fromkeys(key for window in candidates for key in window))
        if not keys:
            return []
        values, names = self._look_up(keys)
        used = self._banding.bands * self._banding.rows
        best: dict[int, tuple[float, int]] = {}
        places = {key: place for place, key in enumerate(keys)}
        for start, signature, found in zip(
            starts.tolist(), signatures[:, :used], candidates, strict=True
        ):
            rows = [places[key] for key in found]
            scores = (values[rows] == signature).mean(axis=1)
            for row, score in zip(rows, scores.tolist(), strict=True):
                if score >= min_similarity and score > best.get(row, (-1.0, 0))[0]:
                    best[row] = (score, start)
        near = [self._near(keys[row], names[row], *match) for row, match in best.items()]
        return sorted(near, key=lambda n: (-n.similarity, n.source, n.document))

    def _candidates(self, signatures: Signatures) -> list[list[bytes]]:
        """Keys that share a bucket with each query window."""
        if not len(signatures):
            return []
        answers = self._generation.ask(
            *(
                ("SMEMBERS", bucket + value)
                for window in band_bytes(signatures, self._banding)
                for bucket, value in zip(self._buckets, window, strict=True)
            )
        )
        per_window = len(self._buckets)
        return [
            sorted(set().union(*answers[at : at + per_window]))
            for at in range(0, len(answers), per_window)
        ]

    def _look_up(self, keys: list[bytes]) -> tuple[NDArray[np.uint32], list[bytes | None]]:
        """The signatures that keys were inserted with, and their documents' names."""
        basename = self._generation.basename
        documents = [int(match[1]) if (match := _KEY.fullmatch(key)) else -1 for key in keys]
        *bands, names = self._generation.ask(
            *(("LRANGE", basename + b"_keys" + key, 0, -1) for key in keys),
            self._generation.names_command(documents),
        )
        used = self._banding.bands * self._banding.rows
        size = 4 * used
        joined = [b"".join(values) for values in bands]
        # A key whose list is gone was deleted in between: it matches nothing.
        whole = b"".join(values if len(values) == size else b"\x00" * size for values in joined)
        return np.frombuffer(whole, ">u4").reshape(-1, used).astype(np.uint32), names

    def _near(
        self, key: bytes, name: bytes | None, similarity: float, query_word: int
    ) -> NearDuplicate:
        match = _KEY.fullmatch(key)
        if match is None or name is None:
            document = _read_pickled(key) if self._is_pickled else key.decode(errors="replace")
            identifier, title, source, first_word, words = document, "", "", 0, 0
        else:
            identifier, title, source = self._generation.read_name(name)
            first_word, words = int(match[2]), int(match[3])
        return NearDuplicate(
            document=identifier,
            title=title,
            source=source,
            first_word=first_word,
            query_word=query_word,
            words=words,
            similarity=similarity,
        )


def band_bytes(signatures: Signatures, banding: Banding) -> Sequence[Sequence[bytes]]:
    """Each band's values as datasketch spells them: big-endian, one after the other."""
    used = signatures[:, : banding.bands * banding.rows].astype(">u4")
    size = 4 * banding.rows
    return [
        [line[at : at + size] for at in range(0, len(line), size)]
        for line in (row.tobytes() for row in used)
    ]


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values; a pickle that names anything to import is refused."""

    def find_class(self, module: str, name: str) -> object:
        raise TrainingIndexError(f"a key in Redis is a pickle that would load {module}.{name}")


def _read_pickled(key: bytes) -> str:
    try:
        value = _PlainUnpickler(io.BytesIO(key)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise TrainingIndexError(f"a key in Redis is no pickle: {error}") from error
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
