"""The output log in one SQLite file, which several processes may use at the same time.

Groups work as in Redis Streams: each has a place up to which it was given records, and a list of
those that were given out and are not done.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from api.errors import OutputLogError
from api.outputs.log import GROUPS, Entry, Findings, LogStats, Result, Retention
from api.outputs.record import OutputRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    call TEXT NOT NULL,
    choice INTEGER NOT NULL,
    choices INTEGER NOT NULL,
    created_s REAL NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (call, choice)
);
CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, given INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pending (
    name TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    consumer TEXT NOT NULL,
    lease_ends_s REAL NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (name, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    name TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    body TEXT NOT NULL,
    PRIMARY KEY (name, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_seq ON pending (seq);
CREATE INDEX IF NOT EXISTS results_seq ON results (seq);
"""
_BUSY_TIMEOUT_S = 10.0


class SqliteLog:
    """`OutputLog` in a file; implements the protocol."""

    def __init__(self, path: Path, retention: Retention, *, lease_s: float) -> None:
        """Open or make the file.

        Raises:
            OutputLogError: It cannot be used.
        """
        self._retention = retention
        self._lease_s = lease_s
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)  # it holds what people wrote
            with self._asking():
                self._db = sqlite3.connect(
                    path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
                )
                self._db.execute("PRAGMA journal_mode=WAL")
                # A crash of the machine may cost the last transactions, one of the process none.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute("PRAGMA foreign_keys=ON")
                self._db.executescript(_SCHEMA)
                self._db.executemany(
                    "INSERT OR IGNORE INTO groups VALUES (?, 0)", [(group,) for group in GROUPS]
                )
        except OSError as error:
            raise OutputLogError(f"{path} cannot be used: {error.strerror}") from None

    def append(self, records: Sequence[OutputRecord]) -> None:
        """See `OutputLog`."""
        rows = [(r.call, r.index, r.choices, r.created_s, r.to_json()) for r in records]
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO records (call, choice, choices, created_s, body) "
                "VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            self._db.execute(
                "DELETE FROM records WHERE seq <= (SELECT max(seq) FROM records) - ?",
                (self._retention.max_records,),
            )
            oldest_s = time.time() - self._retention.max_age_s
            # In order of arrival, so that only the old ones are looked at.
            self._db.execute(
                "DELETE FROM records WHERE created_s < ? AND seq < "
                "(SELECT seq FROM records WHERE created_s >= ? ORDER BY seq LIMIT 1)",
                (oldest_s, oldest_s),
            )

    def read(self, group: str, consumer: str, count: int) -> list[Entry]:
        """See `OutputLog`."""
        now = time.time()
        with self._transaction():
            late = self._db.execute(
                "SELECT seq, deliveries FROM pending WHERE name = ? AND lease_ends_s <= ? "
                "ORDER BY seq LIMIT ?",
                (group, now, count),
            ).fetchall()
            (given,) = self._db.execute(
                "SELECT given FROM groups WHERE name = ?", (group,)
            ).fetchone()
            new = self._db.execute(
                "SELECT seq, 0 FROM records WHERE seq > ? ORDER BY seq LIMIT ?",
                (given, count - len(late)),
            ).fetchall()
            if new:
                self._db.execute("UPDATE groups SET given = ? WHERE name = ?", (new[-1][0], group))
            taken = [(seq, deliveries + 1) for seq, deliveries in late + new]
            lease_ends_s = now + self._lease_s
            self._db.executemany(
                "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?)",
                [(group, seq, consumer, lease_ends_s, times) for seq, times in taken],
            )
            return [self._entry(seq, times) for seq, times in taken]

    def ack(self, group: str, done: Sequence[tuple[Entry, Result]]) -> None:
        """See `OutputLog`."""
        with self._transaction():
            # What retention has taken meanwhile has no use for a result.
            self._db.executemany(
                "INSERT OR REPLACE INTO results SELECT ?, seq, ? FROM records WHERE seq = ?",
                [(group, json.dumps(result), int(entry.key)) for entry, result in done],
            )
            self._db.executemany(
                "DELETE FROM pending WHERE name = ? AND seq = ?",
                [(group, int(entry.key)) for entry, _ in done],
            )

    def find(self, group: str, call: str) -> Findings | None:
        """See `OutputLog`."""
        with self._asking():
            rows = self._db.execute(
                "SELECT choice, choices, results.body FROM records LEFT JOIN results "
                "ON results.seq = records.seq AND results.name = ? WHERE call = ?",
                (group, call),
            ).fetchall()
        if not rows:
            return None
        found = {index: json.loads(body) for index, _, body in rows if body is not None}
        return Findings(choices=rows[0][1], results=found)

    def stats(self) -> LogStats:
        """See `OutputLog`."""
        with self._asking():
            (depth,) = self._db.execute("SELECT count(*) FROM records").fetchone()
            lag = self._db.execute(
                "SELECT name, (SELECT count(*) FROM records WHERE seq > given) FROM groups"
            ).fetchall()
            pending = dict.fromkeys(GROUPS, 0) | dict(
                self._db.execute("SELECT name, count(*) FROM pending GROUP BY name").fetchall()
            )
        return LogStats(depth=depth, lag=dict(lag), pending=pending)

    def close(self) -> None:
        """See `OutputLog`."""
        with self._lock:
            self._db.close()

    def _entry(self, seq: int, deliveries: int) -> Entry:
        (body,) = self._db.execute("SELECT body FROM records WHERE seq = ?", (seq,)).fetchone()
        return Entry(key=str(seq), record=OutputRecord.from_json(body), deliveries=deliveries)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """The connection, for one thread at a time."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise OutputLogError(f"the output log failed: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, against other processes too."""
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
