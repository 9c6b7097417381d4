"""A run's folder: what run it is, and the journal of all that is done.

A line of the journal is a finished unit. Lines are appended by one write and are on disk before
they count as done, so that a run that is killed at any moment goes on from there.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from api.errors import AuditError
from safety.audits.units import Record

_RUN, _JOURNAL = "run.json", "journal.jsonl"
_SURROGATE = re.compile("[\ud800-\udfff]")


class RunFolder:
    """The folder, held by this process alone while it is open."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Begin a run, or take up the one that is there.

        Args:
            path: The folder; created if it is not there.
            identity: All that the run's numbers depend on, as JSON.

        Raises:
            AuditError: The folder cannot be written, is in use, or holds another run.
        """
        self.path = path
        self.records: dict[str, Record] = {}
        """What is done, by unit; what the model refused is tried again."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path / _JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise AuditError(f"{path} cannot be written: {error.strerror}") from None
        try:
            self._lock()
            self._check_identity(json.loads(json.dumps(identity)))
            self._restore()
        except OSError as error:
            os.close(self._fd)
            raise AuditError(f"{path} cannot be written: {error.strerror}") from None
        except AuditError:
            os.close(self._fd)
            raise

    def __enter__(self) -> RunFolder:
        """Nothing more to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the folder."""
        os.close(self._fd)

    def append(self, records: Sequence[Record]) -> None:
        """Write finished units down; they are on disk when this returns.

        Raises:
            AuditError: They cannot be written whole: the disk may be full.
        """
        text = "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records)
        data = text.encode()
        try:
            written = os.write(self._fd, data)
            os.fsync(self._fd)
        except OSError as error:
            raise AuditError(f"{self.path} cannot be written: {error.strerror}") from None
        if written < len(data):
            raise AuditError(f"{self.path} took {written} of {len(data)} bytes: is the disk full?")
        for record in records:
            self.records[record.id] = record

    def write(self, name: str, text: str) -> Path:
        """Put a file into the folder in one step, in place of an older one."""
        path, new = self.path / name, self.path / f"{name}.new"
        new.write_text(sound(text), encoding="utf-8")
        os.replace(new, path)
        return path

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(f"{self.path} is in use by another talipot audit") from None

    def _check_identity(self, identity: dict[str, Any]) -> None:
        path = self.path / _RUN
        if not path.exists():
            if os.fstat(self._fd).st_size:
                raise AuditError(f"{self.path} has a journal and no {_RUN}: is it another's?")
            self.write(_RUN, json.dumps(identity, indent=2) + "\n")
            return
        try:
            before = json.loads(path.read_bytes())
        except ValueError as error:
            raise AuditError(f"{path}: no JSON: {error}") from None
        difference = _first_difference("", before, identity)
        if difference is not None:
            raise AuditError(
                f"{self.path} holds a run with other settings: {difference}. Give --out another "
                "folder, or the settings of that run to go on with it."
            )

    def _restore(self) -> None:
        """Read the journal up to its last whole line, and cut off what is behind that."""
        with open(self.path / _JOURNAL, "rb") as file:
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.ftruncate(self._fd, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            record = self._record(number, line)
            if record.error is None:
                self.records[record.id] = record

    def _record(self, number: int, line: bytes) -> Record:
        try:
            fields = json.loads(line)
            return Record(
                id=fields["id"],
                texts=tuple(fields["texts"]),
                finish_reasons=tuple(fields["finish_reasons"]),
                num_tokens=tuple(fields["num_tokens"]),
                loglikelihoods=tuple(fields["loglikelihoods"]),
                scores=tuple(tuple(row) for row in fields["scores"]),
                error=fields["error"],
            )
        except (ValueError, KeyError, TypeError):
            raise AuditError(
                f"{self.path / _JOURNAL} line {number} is no line of talipot audit: {line[:60]!r}"
            ) from None


def sound(text: str) -> str:
    """The text with a replacement character for each lone surrogate, which no file can hold."""
    return _SURROGATE.sub("\ufffd", text)


def _first_difference(where: str, before: object, now: object) -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            name = f"{where}.{key}" if where else str(key)
            found = _first_difference(name, before.get(key), now.get(key))
            if found is not None:
                return found
        return None
    return None if before == now else f"{where} was {before!r} and is {now!r} now"
