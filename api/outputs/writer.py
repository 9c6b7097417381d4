"""Hands finished generations to the output log on a thread of its own: no stream waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from api.errors import OutputLogError
from api.outputs.log import LogStats, OutputLog, Result
from api.outputs.pipelines import Pipeline, failed, process_each
from api.outputs.record import OutputRecord

_LOGGER = logging.getLogger("talipot.outputs")
_BATCH = 256
_LINGER_S = 0.05  # records that come together are written together
_STATS_EVERY_S = 2.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 2.0
_CLOSE_TIMEOUT_S = 5.0


class OutputWriter:
    """Appends records in the order in which they were put; any thread may put.

    While the log's store is away, records wait here; beyond `max_waiting` they are dropped and
    counted.
    """

    def __init__(
        self,
        log: OutputLog,
        *,
        max_waiting: int = 20_000,
        hash_after: Callable[[], Sequence[Pipeline]] | None = None,
    ) -> None:
        """Write to `log`, which is closed with the writer.

        Args:
            log: Where records go.
            max_waiting: Most records that wait.
            hash_after: Makes the pipelines that look at a text before its hash takes its place;
                None to store texts.
        """
        self.log = log
        self._max_waiting = max_waiting
        self._make_pipelines = hash_after
        self._changed = threading.Condition()
        self._waiting: deque[OutputRecord] = deque()
        self._writing: list[OutputRecord] = []
        self._calls: Counter[str] = Counter()  # of what waits or is being written
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self.written_total = 0
        self.dropped_total = 0
        self.stats: LogStats | None = None
        """The log's own figures, a few seconds old; None while it does not answer."""

    @property
    def waiting(self) -> int:
        """Records that are not in the log yet."""
        return len(self._waiting) + len(self._writing)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="talipot-outputs", daemon=True)
        self._thread.start()

    def put(self, record: OutputRecord) -> None:
        """Hand over a record; returns at once."""
        with self._changed:
            if len(self._waiting) >= self._max_waiting or self._is_closing:
                self.dropped_total += 1
                if self.dropped_total == 1:
                    _LOGGER.error("the output log lags too far behind: generations are dropped")
                return
            self._waiting.append(record)
            self._calls[record.call] += 1
            self._changed.notify()

    def holds(self, call: str) -> bool:
        """Whether something of a call is still on its way to the log."""
        with self._changed:
            return call in self._calls

    def close(self) -> None:
        """Write what waits, as far as the store takes it within seconds, and close the log."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)
        if self.waiting:
            _LOGGER.error("%d generations did not reach the output log", self.waiting)
        self.log.close()

    def _run(self) -> None:
        pipelines: Sequence[Pipeline] | None = None
        next_stats_s = 0.0
        while self._take(next_stats_s):
            if self._writing:
                records = self._writing
                if self._make_pipelines is not None:
                    # Not before: with the first record, all that the server needs is loaded.
                    pipelines = self._make_pipelines() if pipelines is None else pipelines
                    records = _hashed(records, pipelines)
                self._forget(is_written=self._write(records))
            if time.monotonic() >= next_stats_s:
                self._read_stats()
                next_stats_s = time.monotonic() + _STATS_EVERY_S

    def _take(self, until_s: float) -> bool:
        """Wait for records, or until a time; False when there is nothing more to do."""
        with self._changed:
            while not self._waiting and not self._is_closing:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return True
                self._changed.wait(left_s)
            if not self._is_closing:
                self._changed.wait_for(
                    lambda: self._is_closing or len(self._waiting) >= _BATCH, _LINGER_S
                )
            count = min(_BATCH, len(self._waiting))
            self._writing = [self._waiting.popleft() for _ in range(count)]
            return bool(self._writing) or not self._is_closing

    def _write(self, records: Sequence[OutputRecord]) -> bool:
        """Append; while the store is away try again. False if that came to no end in time."""
        delay_s = _FIRST_RETRY_S
        closing_since_s: float | None = None
        while True:
            try:
                self.log.append(records)
            except OutputLogError as error:
                if delay_s == _FIRST_RETRY_S:
                    _LOGGER.warning("%s; generations wait", error)
                self.stats = None
            else:
                return True
            with self._changed:
                if not self._changed.wait_for(lambda: self._is_closing, delay_s):
                    delay_s = min(_LAST_RETRY_S, delay_s * 2)
                    continue
            closing_since_s = closing_since_s or time.monotonic()
            if time.monotonic() - closing_since_s > _CLOSE_TIMEOUT_S / 2:
                return False
            time.sleep(_FIRST_RETRY_S)

    def _forget(self, *, is_written: bool) -> None:
        with self._changed:
            for record in self._writing:
                self._calls[record.call] -= 1
                if not self._calls[record.call]:
                    del self._calls[record.call]
            if is_written:
                self.written_total += len(self._writing)
            else:
                self.dropped_total += len(self._writing)
            self._writing = []

    def _read_stats(self) -> None:
        try:
            self.stats = self.log.stats()
        except OutputLogError:
            self.stats = None


def _hashed(records: Sequence[OutputRecord], pipelines: Sequence[Pipeline]) -> list[OutputRecord]:
    """The records without their texts, and what the pipelines found in them before."""
    results: list[dict[str, Result]] = [{} for _ in records]
    for pipeline in pipelines:
        for each, found in zip(results, process_each(pipeline, records), strict=True):
            each[pipeline.group] = failed(found) if isinstance(found, Exception) else found
    return [record.hashed(each) for record, each in zip(records, results, strict=True)]
