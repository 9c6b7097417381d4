"""Builds an index in Redis: resumable, and switched to when it is whole."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from memorization.corpus import Document, corpus_files, read_corpus
from memorization.encode import encode_documents
from memorization.errors import CorpusError, TrainingIndexError
from memorization.layout import VERSION, IndexParameters, generation_name
from memorization.redis_appender import Appender
from memorization.redis_datasketch import DatasketchWriter
from memorization.redis_fingerprints import FingerprintLayout, fingerprint_bits
from memorization.redis_index import RedisIndex
from memorization.redis_store import (
    DOCUMENTS,
    REDIS_LAYOUT,
    STATE,
    answering,
    current_key,
    read_manifest,
)
from memorization.redis_windows import WindowLayout, bucket_bits
from memorization.signatures import make_signer
from memorization.suffix_array import Stored
from memorization.tokenizer import IndexTokenizer, tokenizer_identity
from memorization.winnowing import Winnowing

_CHECKPOINT_CHARACTERS = 1 << 22
_SCAN_COUNT = 10_000
_RENEWED = 1000


def build_redis_index(
    corpus: Sequence[Path],
    client: redis.Redis,
    name: str,
    parameters: IndexParameters,
    *,
    tokenizer: IndexTokenizer | None = None,
    winnowing: Winnowing | None = None,
    on_characters: Callable[[int], None] = lambda _: None,
) -> RedisIndex:
    """Index a corpus under `name`: verbatim runs as fingerprints, and near duplicates.

    Stopped at any moment, the same call goes on from where it was. What `name` served before is
    served until the new index is whole, and then removed.

    Args:
        corpus: Files and folders; see `memorization.corpus`.
        client: A connection; answers must be bytes.
        name: What the index is called in Redis.
        parameters: What is indexed; `ngram` and `shard_tokens` have no meaning here.
        tokenizer: Whose ids are indexed; needed for verbatim runs.
        winnowing: How the text is thinned out to fingerprints.
        on_characters: Told the characters that are done, those of an earlier part first.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
        TrainingIndexError: Verbatim runs are wanted, and there is no tokenizer.
        IndexBuildError: Another process builds the same index.
        IndexUnavailableError: Redis does not answer, or is full.
    """
    if parameters.exact and tokenizer is None:
        raise TrainingIndexError("exact needs a tokenizer: fingerprints are of tokens")
    winnowing = winnowing or Winnowing()
    identity = "" if tokenizer is None else tokenizer_identity(tokenizer)
    vocab_size = 0 if tokenizer is None else tokenizer.vocab_size
    files = corpus_files(corpus)
    layout = [REDIS_LAYOUT, dataclasses.asdict(winnowing)]
    generation = generation_name(files, identity, vocab_size, parameters, *layout)
    basename = f"{name}:{generation}"
    served = _served(client, name)
    with answering(f"the index {name!r} in Redis"):
        if served != basename:
            build = _Build(client, basename.encode(), parameters, winnowing, tokenizer, files)
            build.read(on_characters)
            manifest = {
                "version": [VERSION, REDIS_LAYOUT],
                "basename": basename,
                "tokenizer": identity,
                "vocab_size": vocab_size,
                "parameters": parameters.to_dict(),
                "winnowing": dataclasses.asdict(winnowing),
                **build.finish(),
            }
            client.set(current_key(name), json.dumps(manifest, sort_keys=True))
        _remove_others(client, name, basename)
    return RedisIndex.open(client, name)


class _Build:
    """Writes one generation."""

    def __init__(
        self,
        client: redis.Redis,
        basename: bytes,
        parameters: IndexParameters,
        winnowing: Winnowing,
        tokenizer: IndexTokenizer | None,
        files: Sequence[Path],
    ) -> None:
        self._client = client
        self._basename = basename
        self._tokenizer = tokenizer if parameters.exact else None
        self._parameters = parameters
        self._files = files
        size = sum(file.stat().st_size for file in files)
        self._bits = {
            "bucket_bits": bucket_bits(parameters, size),
            "fingerprint_bits": fingerprint_bits(winnowing, size),
        }
        self._signer = make_signer(
            parameters.signature, parameters.windows, parameters.banding.num_perm
        )
        self._windows: WindowLayout | None = None
        self._datasketch: DatasketchWriter | None = None
        if parameters.near and parameters.signature == "datasketch":
            self._datasketch = DatasketchWriter(client, basename, parameters.banding)
        elif parameters.near:
            self._windows = WindowLayout(basename, parameters, self._bits["bucket_bits"])
        self._fingerprints = FingerprintLayout(basename, winnowing, self._bits["fingerprint_bits"])
        self._names: dict[Any, Any] = {}
        self._appender = Appender(client, basename + STATE, self._write_names_and_sets)

    def read(self, on_characters: Callable[[int], None]) -> None:
        """Index what is not indexed yet."""
        done = self._appender.progress
        on_characters(done.characters)
        since = 0
        for document, stored in self._encoded(done.documents):
            self._add(document, stored)
            since += len(document.text)
            if since >= _CHECKPOINT_CHARACTERS:
                self._appender.save()
                since = 0
            on_characters(len(document.text))
        if not self._appender.progress.documents:
            raise CorpusError(f"the corpus has no document: {', '.join(map(str, self._files))}")
        self._appender.save()

    def finish(self) -> dict[str, int]:
        """Sort what was appended; what the manifest says of it. May be done again."""
        progress = self._appender.progress
        if self._windows is not None:
            for table in self._windows.buckets:
                for _ in table.sort(self._client):
                    pass
            _renew(self._client, self._windows.blocks(progress.windows))
        ngram_bytes = 0
        if self._tokenizer is not None:
            kept = self._fingerprints.table.sort(self._client)
            ngram_bytes = self._fingerprints.write_ngrams(self._client, progress.fingerprints, kept)
        return {**self._bits, "ngram_bytes": ngram_bytes}

    def _encoded(self, skipped: int) -> Iterator[tuple[Document, Stored | None]]:
        documents = itertools.islice(read_corpus(self._files), skipped, None)
        if self._tokenizer is None:
            return ((document, None) for document in documents)
        return encode_documents(documents, self._tokenizer)

    def _add(self, document: Document, stored: Stored | None) -> None:
        progress = self._appender.progress
        number = progress.documents
        windows = fingerprints = 0
        named = [document.id, document.title, document.source]
        self._names[number] = json.dumps(named, ensure_ascii=False)
        if self._parameters.near:
            windows = self._add_windows(number, document.text, progress.windows)
        if stored is not None:
            records = self._fingerprints.records(number, stored)
            fingerprints = len(records)
            self._appender.append(self._fingerprints.appends(records))
        self._appender.end_document(
            characters=len(document.text), windows=windows, fingerprints=fingerprints
        )

    def _add_windows(self, number: int, text: str, before: int) -> int:
        signed = self._signer.sign(text)
        size = min(self._parameters.windows.window_words, signed.words)
        if self._datasketch is not None:
            self._datasketch.add(number, size, signed)
        if self._windows is not None:
            self._appender.append(self._windows.appends(before, number, size, signed))
        return len(signed.starts)

    def _write_names_and_sets(self) -> None:
        if self._names:
            self._client.hset(self._basename + DOCUMENTS, mapping=self._names)
            self._names = {}
        if self._datasketch is not None:
            self._datasketch.flush()


def _served(client: redis.Redis, name: str) -> str | None:
    """Basename of what is served; None also for what only another release reads."""
    try:
        manifest = read_manifest(client, name)
    except TrainingIndexError:
        return None
    return None if manifest is None else str(manifest["basename"])


def _renew(client: redis.Redis, names: Sequence[bytes]) -> None:
    """Write strings anew, without the room that appending has left behind them."""
    for at in range(0, len(names), _RENEWED):
        some = names[at : at + _RENEWED]
        answers: Any = client.mget(some)
        client.mset(dict(zip(some, answers, strict=True)))


def _remove_others(client: redis.Redis, name: str, basename: str) -> None:
    """Remove what older builds of the same name left."""
    pattern = f"{_escape(name)}:g-*"
    keep = basename.encode()
    for batch in _batched(client.scan_iter(match=pattern, count=_SCAN_COUNT), _SCAN_COUNT):
        if old := [key for key in batch if not key.startswith(keep)]:
            client.unlink(*old)


def _escape(name: str) -> str:
    return "".join(f"\\{character}" if character in r"*?[]\^-" else character for character in name)


def _batched(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    iterator = iter(keys)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
