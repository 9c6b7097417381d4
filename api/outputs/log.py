"""What every output log does, and which one a process uses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from api.outputs.record import OutputRecord

GROUPS: tuple[str, ...] = ("safety", "memorization")
"""The side pipelines; each reads every record."""
REDIS_URL_VARIABLE = "TALIPOT_REDIS_URL"

Result: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record as a group reads it.

    Attributes:
        key: What `ack` is told; the log's own.
        record: The record.
        deliveries: How often it was given out, this time included.
    """

    key: str
    record: OutputRecord
    deliveries: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogStats:
    """A log's figures at one moment.

    Attributes:
        depth: Records that are kept.
        lag: For each group the records that it was never given.
        pending: For each group the records that were given out and are not done.
    """

    depth: int
    lag: Mapping[str, int]
    pending: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a group found in the choices of a call.

    Attributes:
        choices: How many choices the call has.
        results: Index of a choice to its result, of those that are done.
    """

    choices: int
    results: Mapping[int, Result]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much a log keeps; what is beyond goes, oldest first, done or not.

    Attributes:
        max_records: Most records.
        max_age_s: Longest time that a record and its results are kept, in seconds.
    """

    max_records: int = 100_000
    max_age_s: float = 7 * 86400.0


class OutputLog(Protocol):
    """Delivers each record to each group at least once, and keeps one result of each.

    Every method may be called from any thread, and raises `api.errors.OutputLogError` where the
    store does not answer; nothing is then half done.
    """

    def append(self, records: Sequence[OutputRecord]) -> None:
        """Add records; one that is there already is not added again."""

    def read(self, group: str, consumer: str, count: int) -> list[Entry]:
        """Up to `count` records for a consumer: those that another one let lie, then new ones.

        They are this consumer's until its lease ends.
        """

    def ack(self, group: str, done: Sequence[tuple[Entry, Result]]) -> None:
        """Keep results, in one step with the note that the records are done."""

    def find(self, group: str, call: str) -> Findings | None:
        """A call's results; None for a call that the log does not have."""

    def stats(self) -> LogStats:
        """The figures of this moment."""

    def close(self) -> None:
        """Let go of the store."""


def open_log(data_dir: Path, retention: Retention, *, lease_s: float) -> OutputLog:
    """The log of this process: Redis where `TALIPOT_REDIS_URL` names one, else a SQLite file.

    Args:
        data_dir: Folder of the SQLite file, made if it is not there.
        retention: What is kept.
        lease_s: Seconds after which a record that a consumer has not finished goes to another.

    Raises:
        OutputLogError: The file or the URL cannot be used. A Redis server that is away is no error.
    """
    url = os.environ.get(REDIS_URL_VARIABLE)
    if url:
        from api.outputs.redis_log import RedisLog

        return RedisLog(url, retention, lease_s=lease_s)
    from api.outputs.sqlite_log import SqliteLog

    return SqliteLog(data_dir / "outputs.sqlite", retention, lease_s=lease_s)
