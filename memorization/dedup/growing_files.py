"""Files that are only appended to: a checkpoint is their lengths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO


class GrowingFiles:
    """Some files of a folder, open for appending."""

    def __init__(self, folder: Path, names: Sequence[str], lengths: Mapping[str, int]) -> None:
        """Open the files and cut them back to a checkpoint; those not in it are emptied."""
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, IO[bytes]] = {}
        for name in names:
            file = (folder / name).open("ab")
            self._files[name] = file
            file.truncate(lengths.get(name, 0))
            file.seek(0, os.SEEK_END)

    def __enter__(self) -> GrowingFiles:
        """Nothing more to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files; what was not checkpointed may be lost."""
        for file in self._files.values():
            file.close()

    def write(self, name: str, data: bytes) -> None:
        """Append to a file."""
        self._files[name].write(data)

    def checkpoint(self) -> dict[str, int]:
        """Flush everything to disk; what the constructor takes to go on from here."""
        lengths = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            lengths[name] = file.tell()
        return lengths
