"""`talipot worker`: reads the output log as one or more of its groups, until a signal."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Sequence

from api.errors import OutputLogError
from api.outputs.log import Entry, OutputLog, Result
from api.outputs.pipelines import Pipeline, failed, process_each
from api.outputs.worker_metrics import WorkerMetrics

_LOGGER = logging.getLogger("talipot.worker")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_IDLE_S = 0.25
_STORE_AWAY_S = 1.0


class Worker:
    """Processes a log's records; any number of workers may share a log.

    A record is done when its result is kept. One that no try can process is done after
    `max_deliveries` of them, with a result that says so.
    """

    def __init__(
        self,
        log: OutputLog,
        pipelines: Sequence[Pipeline],
        *,
        batch: int,
        max_deliveries: int,
    ) -> None:
        """Read up to `batch` records at a time."""
        self.metrics = WorkerMetrics(log)
        self._log = log
        self._pipelines = tuple(pipelines)
        self._batch = batch
        self._max_deliveries = max_deliveries
        self._stop = threading.Event()
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.done_total = 0

    def run(self) -> None:
        """Process until `stop`; a store that is away is tried again."""
        is_away = False
        while not self._stop.is_set():
            try:
                done = self.run_once()
                if is_away:
                    _LOGGER.info("the output log is back")
                is_away = False
                if not done:
                    self._stop.wait(_IDLE_S)
            except OutputLogError as error:
                if not is_away:
                    _LOGGER.warning("%s; trying again", error)
                is_away = True
                self._stop.wait(_STORE_AWAY_S)

    def run_once(self) -> int:
        """One batch for each pipeline; how many records were read."""
        read = 0
        for pipeline in self._pipelines:
            entries = self._log.read(pipeline.group, self.consumer, self._batch)
            read += len(entries)
            done = self._process(pipeline, entries)
            if done:
                self._log.ack(pipeline.group, done)
                self.done_total += len(done)
                self.metrics.count(pipeline.group, [result for _, result in done])
        return read

    def stop(self) -> None:
        """Finish the batch and return from `run`; callable from a signal handler."""
        self._stop.set()

    def stop_on_signals(self) -> None:
        """Stop in order on SIGINT and SIGTERM; on the main thread only."""
        for number in _SIGNALS:
            signal.signal(number, lambda *_: self.stop())

    def _process(self, pipeline: Pipeline, entries: Sequence[Entry]) -> list[tuple[Entry, Result]]:
        done: list[tuple[Entry, Result]] = []
        open_entries = []
        for entry in entries:
            if entry.record.results is None:
                open_entries.append(entry)
            else:  # its text was hashed, and the server has looked at it before
                found = entry.record.results.get(pipeline.group, {"status": "unavailable"})
                done.append((entry, found))
        results = process_each(pipeline, [entry.record for entry in open_entries])
        for entry, result in zip(open_entries, results, strict=True):
            if not isinstance(result, Exception):
                done.append((entry, result))
            elif entry.deliveries >= self._max_deliveries:
                done.append((entry, failed(result)))
        return done
