"""The output: one JSON object a line, and what makes it whole after a crash.

A line is appended by one write, so that a process killed at any moment leaves whole lines and at
most one torn one at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from api.errors import BatchError
from api.strict_json import parse_json
from model.errors import TalipotError
from serving.checks import show


class ResultFile:
    """The output file, held by this process alone while it is open."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, repair its end, and read which ids it answers.

        An answer that is an error is taken out: its line is tried again.

        Raises:
            BatchError: It cannot be written, is in use, or holds what this command did not write.
        """
        self._path = path
        self.done: set[str] = set()
        """Ids with a result."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._lock(self._fd)
            self._restore()
        except OSError as error:
            raise BatchError(f"{path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> ResultFile:
        """Nothing more to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put all on disk and let go of the file."""
        os.fsync(self._fd)
        os.close(self._fd)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record as a line.

        Raises:
            BatchError: The line cannot be written, or not whole: the disk may be full.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise BatchError(f"{self._path} cannot be written: {error.strerror}") from None
        if written < len(line):
            raise BatchError(f"{self._path} took {written} of {len(line)} bytes: is the disk full?")

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(f"{self._path} is in use by another talipot batch") from None

    def _restore(self) -> None:
        """Read the file; keep its results, and nothing torn and no errors."""
        dropped: set[int] = set()
        is_whole = True
        for number, line in self._lines():
            is_whole = line.endswith(b"\n")
            found = self._result_id(number, line, is_whole)
            if found is None:
                dropped.add(number)
            else:
                self.done.add(found)
        if dropped or not is_whole:
            self._replace(dropped)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        with open(self._fd, "rb", closefd=False) as file:
            yield from enumerate(file, start=1)

    def _result_id(self, number: int, line: bytes, is_whole: bool) -> str | None:
        """The id of a line that is a result; None for an error and for a torn last line.

        Raises:
            BatchError: The line is neither, or its id was there before.
        """
        where = f"{self._path} line {number}"
        try:
            record = parse_json(line.rstrip(b"\n"), where)
        except TalipotError as error:
            if not is_whole:
                return None
            raise BatchError(f"{error}; is it the output of talipot batch?") from None
        name = record.get("id") if isinstance(record, dict) else None
        if not isinstance(name, str) or ("text" in record) == ("error" in record):
            raise BatchError(f"{where} is no line of talipot batch: {show(record)}")
        if name in self.done:
            raise BatchError(f"{where} has id={show(name)} for the second time")
        return name if "text" in record else None

    def _replace(self, dropped: set[int]) -> None:
        """Put a file without the dropped lines in the place of the old one, in one step."""
        new = self._path.with_name(self._path.name + ".new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock(fd)
        os.ftruncate(fd, 0)
        with open(fd, "ab", closefd=False) as file:
            for number, line in self._lines():
                if number not in dropped:
                    file.write(line.rstrip(b"\n") + b"\n")
        os.fsync(fd)
        os.replace(new, self._path)
        os.close(self._fd)
        self._fd = fd
