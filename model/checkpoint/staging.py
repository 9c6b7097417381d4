"""Writing a folder so that a reader never sees half of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from model.errors import ExportError


@contextlib.contextmanager
def staged_directory(
    directory: Path, *, last: str, replaces: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Yield an empty folder; when the block succeeds, move its files into `directory`.

    The file `last` is the one without which the folder is not a checkpoint. The old one goes first
    and the new one comes last, so whatever interrupts the move, old and new weights are never
    read together. When the block fails, `directory` stays as it was.

    Args:
        directory: Where the files go; it and its parents are made where missing.
        last: Name of the file that makes the folder valid.
        replaces: Patterns of older files in `directory` that the new ones supersede.

    Raises:
        ExportError: `directory` exists and is not a folder.
    """
    if directory.exists() and not directory.is_dir():
        raise ExportError(f"{directory}: is a file, expected a folder to write to")
    directory.mkdir(parents=True, exist_ok=True)
    # Inside the target, so that moving is renaming within one file system.
    stage = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        yield stage
        (directory / last).unlink(missing_ok=True)
        for pattern in replaces:
            for stale in directory.glob(pattern):
                stale.unlink()
        for path in sorted(stage.iterdir(), key=lambda path: path.name == last):
            path.replace(directory / path.name)
        _flush_directory(directory)
    finally:
        shutil.rmtree(stage)


def write_durably(path: Path, text: str) -> None:
    """Write UTF-8 text and flush it to disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
