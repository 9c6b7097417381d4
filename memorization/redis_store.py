"""An index's keys in Redis: the connection, the generation that is served, and reading from it.

    NAME:current            the manifest of the generation that is served, replaced in one step
    NAME:GENERATION_…       all that the generation consists of

A build writes a generation beside the one that is served, and removes that one after the switch.
Whoever reads asks for the manifest behind all else in the same round trip: where it still names the
generation that was read, nothing of it was removed before.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import redis

from memorization.errors import IndexUnavailableError, TrainingIndexError
from memorization.layout import VERSION

REDIS_LAYOUT = 2
"""Of what a generation consists of in Redis; a manifest's version is `VERSION` and this."""

DOCUMENTS, STATE = b"_documents", b"_state"
_TIMEOUT_S = 2

Command: TypeAlias = tuple[Any, ...]
"""A command's name and arguments."""


class SupersededError(Exception):
    """Another generation is served now, so the answer may miss a part of the one that was asked."""


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


def connect(url: str) -> tuple[redis.Redis, str]:
    """A connection to `redis://HOST:PORT/DB`, and the index's name, `?name=…` or "talipot-index".

    A query that Redis has not answered in two seconds fails, rather than hold up a generation.

    Raises:
        TrainingIndexError: The URL cannot be read, or Redis may evict any key: an index would lose
            parts of itself in silence.
        IndexUnavailableError: Redis does not answer.
    """
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(url)
    name = parse_qs(parts.query).get("name", ["talipot-index"])[0]
    try:
        client = redis.Redis.from_url(
            parts._replace(query="").geturl(),
            socket_connect_timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
        )
    except ValueError as error:
        raise TrainingIndexError(f"{url} is no address of Redis: {error}") from error
    with answering(f"Redis at {parts.netloc}"):
        memory: Any = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy.startswith("allkeys"):
        raise TrainingIndexError(
            f"Redis at {parts.netloc} has maxmemory-policy {policy} and would evict parts of an "
            "index: set noeviction or a volatile policy"
        )
    return client, name


def current_key(name: str) -> str:
    """Where the manifest of the served generation of an index is."""
    return f"{name}:current"


def read_manifest(client: redis.Redis, name: str) -> dict[str, Any] | None:
    """The manifest of the generation that is served; None if there is none.

    Raises:
        TrainingIndexError: This release does not read it.
        IndexUnavailableError: Redis does not answer.
    """
    with answering(f"the index {name!r} in Redis"):
        found: Any = client.get(current_key(name))
    if found is None:
        return None
    manifest: dict[str, Any] = json.loads(found)
    version = [VERSION, REDIS_LAYOUT]
    if manifest["version"] != version:
        raise TrainingIndexError(
            f"the index {name!r} in Redis has version {manifest['version']}, and this release "
            f"reads {version}: build it again"
        )
    return manifest


class Generation:
    """Reads the keys of one generation."""

    def __init__(self, client: redis.Redis, basename: bytes, name: str | None = None) -> None:
        """Read what begins with `basename`.

        Args:
            client: A connection; answers must be bytes.
            basename: What all keys begin with.
            name: The index that it must be served as; None for keys that no build replaces.
        """
        self.client = client
        self.basename = basename
        self.where = f"the index {basename.decode(errors='replace')} in Redis"
        self._current = None if name is None else current_key(name)

    def ask(self, *commands: Command) -> list[Any]:
        """Answers to some commands, in one round trip.

        Raises:
            SupersededError: The generation is not the one that is served any more.
            IndexUnavailableError: Redis does not answer.
        """
        pipeline: Any = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        if self._current is not None:
            pipeline.get(self._current)
        with answering(self.where):
            answers: list[Any] = pipeline.execute()
        if self._current is not None:
            current = answers.pop()
            if current is None or json.loads(current)["basename"].encode() != self.basename:
                raise SupersededError
        return answers

    def names_command(self, documents: list[int]) -> Command:
        """Asks for the names of documents; for `read_name`."""
        return ("HMGET", self.basename + DOCUMENTS, *documents)

    def read_name(self, answer: bytes | None) -> tuple[str, str, str]:
        """(id, title, source) of a document.

        Raises:
            IndexUnavailableError: It is gone.
        """
        if answer is None:
            raise IndexUnavailableError(f"{self.where} has lost a document's name: build it again")
        identifier, title, source = json.loads(answer)
        return identifier, title, source
