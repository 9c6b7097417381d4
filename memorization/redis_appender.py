"""Appends to strings in Redis, so that a build that was cut off goes on where it was.

Appends are numbered in the order in which a corpus gives them, which is the same at every try.
Those of a batch are done together with the note of how far the build is, or not at all.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

import redis

from memorization.errors import IndexBuildError

# KEYS[1] is the state, ARGV[1] what it must be and ARGV[2] what it becomes; names and data follow.
# Where it is that already the batch is done: by a call whose answer was lost, or another process.
_APPEND = """
local state = redis.call('GET', KEYS[1]) or ''
if state == ARGV[2] then return 1 end
if state ~= ARGV[1] then return 0 end
for at = 3, #ARGV, 2 do redis.call('APPEND', ARGV[at], ARGV[at + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_BATCH = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a build is at the beginning of a document.

    Attributes:
        documents: Documents before it.
        characters: Their characters.
        windows: Their windows.
        fingerprints: Their fingerprints.
        appends: Appends that they gave.
    """

    documents: int = 0
    characters: int = 0
    windows: int = 0
    fingerprints: int = 0
    appends: int = 0


class Appender:
    """Does what is appended, many in a call, and keeps how far it is."""

    def __init__(
        self, client: redis.Redis, state: bytes, before_save: Callable[[], None] = lambda: None
    ) -> None:
        """Go on from what `state` holds, if anything.

        Args:
            client: A connection; answers must be bytes.
            state: Where the state is kept.
            before_save: Called before a note is made of finished documents, so that what else
                belongs to them is written by then.
        """
        self._client = client
        self._state = state
        self._before_save = before_save
        self._append = client.register_script(_APPEND)
        found: Any = client.get(state)
        self._saved: bytes = found or b""
        self._done = 0
        self.progress = Progress()
        if found:
            saved = json.loads(found)
            self._done = saved["done"]
            self.progress = Progress(**saved["progress"])
        self._count = self.progress.appends
        self._waiting: list[bytes] = []

    def append(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Append data to names, perhaps a little later; what was done before is passed over.

        Raises:
            IndexBuildError: Another process builds the same index.
        """
        for name, data in pairs:
            self._count += 1
            if self._count > self._done:
                self._waiting += (name, data)
                if len(self._waiting) >= 2 * _BATCH:
                    self.save()

    def end_document(self, *, characters: int, windows: int, fingerprints: int) -> None:
        """All appends of a document of such a size are given."""
        before = self.progress
        self.progress = Progress(
            documents=before.documents + 1,
            characters=before.characters + characters,
            windows=before.windows + windows,
            fingerprints=before.fingerprints + fingerprints,
            appends=self._count,
        )

    def save(self) -> None:
        """Do what waits, and note how far the build is.

        Raises:
            IndexBuildError: Another process builds the same index.
        """
        self._before_save()
        done = max(self._done, self._count)
        state = json.dumps({"done": done, "progress": dataclasses.asdict(self.progress)}).encode()
        if not self._append(keys=[self._state], args=[self._saved, state, *self._waiting]):
            raise IndexBuildError(
                f"another process builds the index {self._state.decode(errors='replace')}: "
                "what is finished is kept; run the same command again when no other does"
            )
        self._saved, self._done, self._waiting = state, done, []
