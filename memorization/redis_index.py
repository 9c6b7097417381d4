"""The index in Redis: verbatim runs by fingerprints, near duplicates by MinHash LSH.

A farm of servers shares it. Each keeps a connection, and follows when a newer index takes the place
of the one that it opened: a query that meets the switch is asked again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import redis

from memorization.errors import IndexUnavailableError, TrainingIndexError
from memorization.index import NearDuplicate, Span
from memorization.layout import IndexParameters
from memorization.ngram_filter import NgramFilter
from memorization.redis_datasketch import DatasketchWindows
from memorization.redis_fingerprints import RedisFingerprints
from memorization.redis_store import Generation, SupersededError, read_manifest
from memorization.redis_windows import RedisWindows
from memorization.winnowing import Winnowing

_TRIES = 3
_Answer = TypeVar("_Answer")


class _Near(Protocol):
    def near_duplicates(self, text: str, min_similarity: float) -> list[NearDuplicate]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Opened:
    """A generation, and what it answers; None for what it does not hold."""

    basename: bytes
    tokenizer_identity: str
    near: _Near | None
    runs: RedisFingerprints | None


class RedisIndex:
    """A `TrainingIndex` that answers from Redis."""

    def __init__(self, opened: _Opened, reopen: Callable[[], _Opened]) -> None:
        """Answer from `opened`, and once it is superseded from what `reopen` gives; see `open`."""
        self._opened = opened
        self._reopen = reopen

    @classmethod
    def open(cls, client: redis.Redis, name: str) -> RedisIndex:
        """Open the index that `name` serves.

        Raises:
            TrainingIndexError: There is none.
            IndexUnavailableError: Redis does not answer.
        """
        manifest = read_manifest(client, name)
        if manifest is None:
            raise TrainingIndexError(f"no index named {name!r} in Redis")
        opened = _open(client, name, manifest)

        def reopen() -> _Opened:
            newer = read_manifest(client, name)
            if newer is None:
                raise IndexUnavailableError(f"the index {name!r} is not in Redis any more")
            if newer["tokenizer"] != opened.tokenizer_identity:
                raise IndexUnavailableError(
                    f"the index {name!r} in Redis was replaced by one of another tokenizer"
                )
            return _open(client, name, newer)

        return cls(opened, reopen)

    @classmethod
    def of_datasketch(
        cls,
        client: redis.Redis,
        basename: bytes,
        parameters: IndexParameters,
        *,
        is_pickled: bool = False,
    ) -> RedisIndex:
        """Attach to what plain datasketch wrote; arguments as of `DatasketchWindows`."""
        near = DatasketchWindows(Generation(client, basename), parameters, is_pickled=is_pickled)
        opened = _Opened(basename=basename, tokenizer_identity="", near=near, runs=None)
        return cls(opened, lambda: opened)

    @property
    def basename(self) -> bytes:
        """What all keys of the generation begin with."""
        return self._opened.basename

    @property
    def tokenizer_identity(self) -> str:
        """Identity of the tokenizer that it was built with."""
        return self._opened.tokenizer_identity

    @property
    def sure_tokens(self) -> int | None:
        """See `TrainingIndex`; None if it was built without verbatim runs."""
        runs = self._opened.runs
        return None if runs is None else runs.winnowing.guarantee_tokens

    def ngrams(self) -> NgramFilter | None:
        """See `TrainingIndex`: fetched from Redis, and of the generation that is served then.

        Raises:
            IndexUnavailableError: Redis does not answer, or has lost a part.
        """
        return self._ask(lambda opened: None if opened.runs is None else opened.runs.ngrams())

    def longest_matches(
        self, tokens: Sequence[int], *, min_tokens: int = 1, max_occurrences: int = 10
    ) -> list[Span]:
        """Return the runs of the query that the corpus has, as `FingerprintIndex` does.

        Raises:
            TrainingIndexError: A token id lies outside the vocabulary, or the index was built
                without verbatim runs.
            IndexUnavailableError: Redis does not answer.
        """

        def ask(opened: _Opened) -> list[Span]:
            if opened.runs is None:
                raise TrainingIndexError("this index finds near duplicates, no verbatim runs")
            return opened.runs.longest_matches(tokens, min_tokens, max_occurrences)

        return self._ask(ask)

    def near_duplicates(self, text: str, *, min_similarity: float = 0.5) -> list[NearDuplicate]:
        """Return corpus windows that resemble the text; see `TrainingIndex.near_duplicates`."""

        def ask(opened: _Opened) -> list[NearDuplicate]:
            if opened.near is None:
                raise TrainingIndexError("this index was built without near duplicates")
            return opened.near.near_duplicates(text, min_similarity)

        return self._ask(ask)

    def _ask(self, question: Callable[[_Opened], _Answer]) -> _Answer:
        for _ in range(_TRIES):
            try:
                return question(self._opened)
            except SupersededError:
                # Several threads may come here at once: each opens what is served now.
                self._opened = self._reopen()
        raise IndexUnavailableError("the index in Redis was replaced again and again")


def _open(client: redis.Redis, name: str, manifest: dict[str, Any]) -> _Opened:
    parameters = IndexParameters.from_dict(manifest["parameters"])
    generation = Generation(client, manifest["basename"].encode(), name)
    near: _Near | None = None
    runs: RedisFingerprints | None = None
    if parameters.near and parameters.signature == "datasketch":
        near = DatasketchWindows(generation, parameters)
    elif parameters.near:
        near = RedisWindows(generation, parameters, manifest["bucket_bits"])
    if parameters.exact:
        runs = RedisFingerprints(
            generation,
            Winnowing(**manifest["winnowing"]),
            manifest["fingerprint_bits"],
            vocab_size=manifest["vocab_size"],
            ngram_bytes=manifest["ngram_bytes"],
        )
    return _Opened(
        basename=generation.basename,
        tokenizer_identity=manifest["tokenizer"],
        near=near,
        runs=runs,
    )
