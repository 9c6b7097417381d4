"""Builds an index of near duplicates in Redis: resumable, and switched to when it is whole."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from memorization.corpus import Document, corpus_files, read_corpus
from memorization.errors import CorpusError, IndexUnavailableError, TrainingIndexError
from memorization.layout import VERSION, IndexParameters, generation_name
from memorization.redis_index import RedisIndex, answering, band_bytes
from memorization.signatures import make_signer

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
_CHECKPOINT_WINDOWS = 8192
_SCAN_COUNT = 10_000


class RedisWriter:
    """Inserts windows in datasketch's layout, many in a call."""

    def __init__(self, client: redis.Redis, basename: bytes, parameters: IndexParameters) -> None:
        """Prepare for an index of this basename."""
        self._client = client
        self._basename = basename
        self._parameters = parameters
        self._insert = client.register_script(_INSERT)
        self._waiting: list[bytes] = []
        self._count = 0

    def add(self, key: bytes, bands: Sequence[bytes]) -> None:
        """Insert a window, perhaps a little later."""
        self._waiting += (key, *bands)
        self._count += 1
        if self._count >= _BATCH_WINDOWS:
            self.flush()

    def flush(self) -> None:
        """Insert what is waiting."""
        if self._count:
            bands = self._parameters.banding.bands
            self._insert(keys=[self._basename], args=[bands, *self._waiting])
            self._waiting, self._count = [], 0


def build_redis_index(
    corpus: Sequence[Path],
    client: redis.Redis,
    name: str,
    parameters: IndexParameters,
    *,
    tokenizer_identity: str = "",
    vocab_size: int = 0,
    on_characters: Callable[[int], None] = lambda _: None,
) -> RedisIndex:
    """Index a corpus's near duplicates under `name`.

    Stopped at any moment, the same call goes on from the last checkpoint. What `name` served
    before is served until the new index is whole, and then removed.

    Args:
        corpus: Files and folders; see `memorization.corpus`.
        client: A connection; answers must be bytes.
        name: What the index is called in Redis.
        parameters: Windows, banding and kind of signature.
        tokenizer_identity: Identity of the tokenizer in use, kept with the index.
        vocab_size: Its number of ids.
        on_characters: Told the characters that are done, those of an earlier part first.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
        IndexUnavailableError: Redis does not answer, or is full.
    """
    files = corpus_files(corpus)
    generation = generation_name(files, tokenizer_identity, vocab_size, parameters)
    basename = f"{name}:{generation}"
    with answering(f"the index {name!r} in Redis"):
        served: Any = client.get(f"{name}:current")
        if served is None or json.loads(served)["basename"] != basename:
            _insert_corpus(files, client, basename.encode(), parameters, on_characters)
            manifest = {
                "version": VERSION,
                "basename": basename,
                "tokenizer": tokenizer_identity,
                "parameters": parameters.to_dict(),
            }
            client.set(f"{name}:current", json.dumps(manifest, sort_keys=True))
        _remove_others(client, name, basename)
    return RedisIndex.open(client, name)


def _insert_corpus(
    files: Sequence[Path],
    client: redis.Redis,
    basename: bytes,
    parameters: IndexParameters,
    on_characters: Callable[[int], None],
) -> None:
    state = basename + b"_state"
    saved: Any = client.get(state)
    done, characters = json.loads(saved) if saved else (0, 0)
    on_characters(characters)
    writer = RedisWriter(client, basename, parameters)
    signer = make_signer(parameters.signature, parameters.windows, parameters.banding.num_perm)
    since = 0

    def insert(number: int, document: Document) -> int:
        words, starts, signatures = signer.sign(document.text)
        named = [document.id, document.title, document.source]
        client.hset(basename + b"_documents", str(number), json.dumps(named, ensure_ascii=False))
        if len(starts):
            size = min(parameters.windows.window_words, words)
            bands = band_bytes(signatures, parameters.banding)
            for start, values in zip(starts.tolist(), bands, strict=True):
                writer.add(b"%d:%d:%d" % (number, start, size), values)
        return len(starts)

    for document in itertools.islice(read_corpus(files), done, None):
        since += insert(done, document)
        done += 1
        characters += len(document.text)
        if since >= _CHECKPOINT_WINDOWS:
            writer.flush()
            client.set(state, json.dumps([done, characters]))
            since = 0
        on_characters(len(document.text))
    if not done:
        raise CorpusError(f"the corpus has no document: {', '.join(map(str, files))}")
    writer.flush()


def _remove_others(client: redis.Redis, name: str, basename: str) -> None:
    """Remove what older builds of the same name left."""
    pattern = f"{_escape(name)}:g-*"
    keep = basename.encode()
    for batch in _batched(client.scan_iter(match=pattern, count=_SCAN_COUNT), _SCAN_COUNT):
        if old := [key for key in batch if not key.startswith(keep)]:
            client.unlink(*old)


def _escape(name: str) -> str:
    return "".join(f"\\{character}" if character in r"*?[]\^-" else character for character in name)


def _batched(keys: Any, size: int) -> Any:
    iterator = iter(keys)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def connect(url: str) -> tuple[redis.Redis, str]:
    """A connection to `redis://HOST:PORT/DB`, and the index's name, `?name=…` or "talipot-index".

    A query that Redis has not answered in two seconds fails, rather than hold up a generation.

    Raises:
        TrainingIndexError: The URL cannot be read.
        IndexUnavailableError: Redis does not answer.
    """
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(url)
    name = parse_qs(parts.query).get("name", ["talipot-index"])[0]
    try:
        client = redis.Redis.from_url(
            parts._replace(query="").geturl(), socket_connect_timeout=2, socket_timeout=2
        )
    except ValueError as error:
        raise TrainingIndexError(f"{url} is no address of Redis: {error}") from error
    try:
        client.ping()
    except redis.RedisError as error:
        raise IndexUnavailableError(f"Redis at {parts.netloc} does not answer: {error}") from error
    return client, name
