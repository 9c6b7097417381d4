"""Reading data files so that whatever is wrong with one is named: file, line, field."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from safety.audits.errors import AuditDataError

_Item = TypeVar("_Item")
_FIELD_LIMIT = 1 << 24


def shipped(name: str) -> Path:
    """A data file that the package brings along."""
    return Path(str(resources.files("safety.audits") / "data" / name))


def digest(path: Path) -> str:
    """What tells one version of a file, or of a folder's files, from another.

    Returns:
        16 hex digits of a SHA-256.

    Raises:
        AuditDataError: A file cannot be read.
    """
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        found.update(hashlib.sha256(_read(file)).digest())
    return found.hexdigest()[:16]


def label(path: Path, field: str, text: str) -> str:
    """The name of a group, as figures and tables can show it.

    Raises:
        AuditDataError: It has control characters or is no Unicode.
    """
    if not text.isprintable():
        raise AuditDataError(f"{path}: field {field} has the name {text!r}; it must be printable")
    return text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, empty ones left out.

    Raises:
        AuditDataError: It cannot be read or is no UTF-8.
    """
    for number, text in _all_lines(path):
        if text.strip():
            yield number, text


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers.

    Raises:
        AuditDataError: A line is no JSON object.
    """
    for number, text in lines(path):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise AuditDataError(f"{path} line {number}: no JSON: {error}") from None
        if not isinstance(value, dict):
            raise AuditDataError(f"{path} line {number}: {text[:40]!r} is no JSON object")
        yield number, value


def table(
    path: Path, required: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV or TSV file with a heading, each with the number of its last line.

    Raises:
        AuditDataError: It has no heading with the required columns, or a row of another width.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    # Tab-separated files quote nothing: a quotation mark there is one.
    reader = csv.reader(
        (line + "\n" for _, line in _all_lines(path)),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    try:
        heading = next(reader, [])
        missing = [column for column in required if column not in heading]
        if missing:
            raise AuditDataError(
                f"{path} line 1: column {missing[0]!r} is missing; its columns are "
                f"{', '.join(map(repr, heading)) or 'none'}"
            )
        for row in reader:
            if not row:
                continue
            if len(row) != len(heading):
                raise AuditDataError(
                    f"{path} line {reader.line_num}: has {len(row)} fields; the heading has "
                    f"{len(heading)}"
                )
            yield reader.line_num, dict(zip(heading, row, strict=True))
    except csv.Error as error:
        raise AuditDataError(f"{path} line {reader.line_num}: {error}") from None


def json_file(path: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        AuditDataError: It is no JSON; the message says in which line.
    """
    try:
        return json.loads(_read(path))
    except UnicodeDecodeError as error:
        raise AuditDataError(f"{path}: byte {error.start + 1} is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise AuditDataError(f"{path} line {error.lineno}: no JSON: {error.msg}") from None


def text_field(path: Path, number: int, row: dict[str, Any], field: str) -> str:
    """A text of a row that must hold something.

    Raises:
        AuditDataError: It is absent, empty or no text.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise AuditDataError(
            f"{path} line {number}: field {field!r} is {_shown(value)}; expected a text"
        )
    return value


def number_field(
    path: Path, number: int, row: dict[str, Any], field: str, low: float, high: float
) -> float:
    """A number of a row within its limits.

    Raises:
        AuditDataError: It is absent, no number, or outside.
    """
    value = row.get(field)
    try:
        found = float("nan") if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if not low <= found <= high:
        raise AuditDataError(
            f"{path} line {number}: field {field!r} is {_shown(value)}; expected a number from "
            f"{low:g} to {high:g}"
        )
    return found


def at_least_one(path: Path, items: list[_Item], what: str) -> list[_Item]:
    """The items, of which there must be some.

    Raises:
        AuditDataError: There are none.
    """
    if not items:
        raise AuditDataError(f"{path}: holds no {what}")
    return items


def sample(items: Sequence[_Item], limit: int | None, seed: int) -> list[_Item]:
    """`limit` of the items, drawn by the seed, in their old order; all of them if None."""
    if limit is None or limit >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), limit))
    return [items[index] for index in chosen]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _all_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(_read(path).split(b"\n"), start=1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise AuditDataError(
                f"{path} line {number}: byte {error.start + 1} is no UTF-8"
            ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuditDataError(f"{path} cannot be read: {error.strerror}") from None
