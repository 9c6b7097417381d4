"""Near duplicates in Redis, in the layout of datasketch's `MinHashLSH`.

With signatures of datasketch's kind, plain datasketch queries what is built here and the other way
round:

    MinHashLSH(num_perm=…, params=(bands, rows), prepickle=False, storage_config={
        "type": "redis", "basename": b"NAME:GENERATION", "redis": {…}})

A query takes two round trips: one for all buckets of all windows, one for the candidates' band
values, which are their signatures, and documents. datasketch takes one for each band.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from memorization.errors import IndexUnavailableError, TrainingIndexError
from memorization.index import NearDuplicate, Span
from memorization.layout import VERSION, IndexParameters
from memorization.lsh import Banding
from memorization.signatures import Signatures, make_signer

# A key names document, first word and words of a window; the document's name stands apart.
_KEY = re.compile(rb"(\d+):(\d+):(\d+)")


def bucket_names(basename: bytes, bands: int) -> list[bytes]:
    """What each band's buckets begin with."""
    return [basename + b"_bucket_" + struct.pack(">H", band) for band in range(bands)]


def band_bytes(signatures: Signatures, banding: Banding) -> list[list[bytes]]:
    """Each band's values as datasketch spells them: big-endian, one after the other."""
    used = signatures[:, : banding.bands * banding.rows].astype(">u4")
    size = 4 * banding.rows
    return [
        [line[at : at + size] for at in range(0, len(line), size)]
        for line in (row.tobytes() for row in used)
    ]


@contextlib.contextmanager
def answering(where: str) -> Iterator[None]:
    """Turn a failure of Redis into one error.

    Raises:
        IndexUnavailableError: Redis is gone, too slow, or refuses the command.
    """
    try:
        yield
    except redis.RedisError as error:
        raise IndexUnavailableError(f"{where} does not answer: {error}") from error


class RedisIndex:
    """A `TrainingIndex` that answers near duplicates from Redis."""

    def __init__(
        self,
        client: redis.Redis,
        basename: bytes,
        parameters: IndexParameters,
        *,
        tokenizer_identity: str = "",
        is_pickled: bool = False,
    ) -> None:
        """Attach to buckets that exist.

        Args:
            client: A connection; answers must be bytes.
            basename: What all keys begin with, `storage_config["basename"]` in datasketch.
            parameters: Windows, banding and kind of signature that the index was made with.
            tokenizer_identity: Identity of the tokenizer that it was built with, if any.
            is_pickled: Whether keys are pickled, datasketch's default; only pickled strings,
                bytes, numbers and tuples of them are read, and nothing is executed.
        """
        self.parameters = parameters
        self._client = client
        self._basename = basename
        self._where = f"the index {basename.decode(errors='replace')} in Redis"
        self._identity = tokenizer_identity
        self._is_pickled = is_pickled
        self._buckets = bucket_names(basename, parameters.banding.bands)
        self._signer = make_signer(
            parameters.signature, parameters.windows, parameters.banding.num_perm
        )

    @classmethod
    def open(cls, client: redis.Redis, name: str) -> RedisIndex:
        """Open the index that `name` serves now.

        Raises:
            TrainingIndexError: There is none.
            IndexUnavailableError: Redis does not answer.
        """
        with answering(f"the index {name!r} in Redis"):
            found: Any = client.get(f"{name}:current")
        if found is None:
            raise TrainingIndexError(f"no index named {name!r} in Redis")
        manifest = json.loads(found)
        if manifest["version"] != VERSION:
            raise TrainingIndexError(
                f"the index {name!r} in Redis has version {manifest['version']}, and this release "
                f"reads {VERSION}: build it again"
            )
        return cls(
            client,
            manifest["basename"].encode(),
            IndexParameters.from_dict(manifest["parameters"]),
            tokenizer_identity=manifest["tokenizer"],
        )

    @property
    def basename(self) -> bytes:
        """What all keys begin with."""
        return self._basename

    @property
    def tokenizer_identity(self) -> str:
        """Identity of the tokenizer that it was built with."""
        return self._identity

    @property
    def sure_tokens(self) -> None:
        """See `TrainingIndex`: Redis holds near duplicates alone."""
        return None

    def ngrams(self) -> None:
        """See `TrainingIndex`: there are none."""
        return

    def longest_matches(
        self, tokens: Sequence[int], *, min_tokens: int = 1, max_occurrences: int = 10
    ) -> list[Span]:
        """Refuse: Redis holds near duplicates alone.

        Raises:
            TrainingIndexError: Always.
        """
        raise TrainingIndexError("an index in Redis finds near duplicates, no verbatim runs")

    def near_duplicates(self, text: str, *, min_similarity: float = 0.5) -> list[NearDuplicate]:
        """Return corpus windows that resemble the text; see `TrainingIndex.near_duplicates`."""
        _, starts, signatures = self._signer.sign(text)
        if not len(starts):
            return []
        with answering(self._where):
            candidates = self._candidates(signatures)
            if not candidates:
                return []
            keys = list(dict.fromkeys(key for window in candidates for key in window))
            values, names = self._look_up(keys)
        used = self.parameters.banding.bands * self.parameters.banding.rows
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
        pipeline = self._client.pipeline(transaction=False)
        bands = band_bytes(signatures, self.parameters.banding)
        for window in bands:
            for bucket, value in zip(self._buckets, window, strict=True):
                pipeline.smembers(bucket + value)
        answers = pipeline.execute()
        per_window = len(self._buckets)
        found = [
            sorted(set().union(*answers[at : at + per_window]))
            for at in range(0, len(answers), per_window)
        ]
        return found if any(found) else []

    def _look_up(self, keys: list[bytes]) -> tuple[NDArray[np.uint32], list[bytes | None]]:
        """The signatures that keys were inserted with, and their documents' names."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.lrange(self._basename + b"_keys" + key, 0, -1)
        matches = [_KEY.fullmatch(key) for key in keys]
        pipeline.hmget(self._basename + b"_documents", [m[1] if m else b"" for m in matches])
        *bands, names = pipeline.execute()
        used = self.parameters.banding.bands * self.parameters.banding.rows
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
            identifier, title, source = json.loads(name)
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


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values; a pickle that names anything to import is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise TrainingIndexError(f"a key in Redis is a pickle that would load {module}.{name}")


def _read_pickled(key: bytes) -> str:
    try:
        value = _PlainUnpickler(io.BytesIO(key)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise TrainingIndexError(f"a key in Redis is no pickle: {error}") from error
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
