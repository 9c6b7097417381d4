"""JSON objects from files, strictly: a key that appears twice is an error, not an override."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.errors import CheckpointError


def parse_object(path: Path, raw: bytes, what: str = "file") -> dict[str, Any]:
    """The object in `raw`.

    Args:
        path: Where it comes from, for messages.
        raw: UTF-8 JSON.
        what: Which part of the file it is, for messages.

    Raises:
        CheckpointError: It is not JSON, not an object, or has a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise CheckpointError(f"{path}: {key!r} appears twice in the {what} (duplicate)")
            values[key] = value
        return values

    try:
        values = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the {what} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path}: the {what} is a JSON {type(values).__name__}, expected an object"
        )
    return values


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: The file cannot be read, or as `parse_object`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_object(path, raw)


def to_json(values: dict[str, Any]) -> str:
    """The text of a JSON file for people to read.

    Raises:
        ValueError: A number is NaN or infinite, which JSON cannot hold.
    """
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
