"""Reads training corpora as a stream of documents: JSONL, parquet and folders of text.

One document is in memory at a time, whatever the size of a file. The order is that of the
arguments, inside a folder that of the sorted paths: the same corpus is always the same stream.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from memorization.errors import CorpusError

_JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst")
_PARQUET_SUFFIX = ".parquet"
_TEXT_SUFFIXES = (".txt", ".md", ".text")
_PARQUET_ROWS = 256
_SAMPLE_BYTES = 1 << 16

MAX_DOCUMENT_BYTES = 1 << 30
"""Longest line or text file that is read, in bytes: longer is no document but a mistake."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """One training document.

    Attributes:
        id: Its id; where the corpus has none, file name and line or path.
        title: Its title, perhaps empty.
        source: Name of the corpus file.
        text: Its text, free of lone surrogates.
    """

    id: str
    title: str
    source: str
    text: str


def corpus_files(paths: Sequence[Path]) -> list[Path]:
    """The files of a corpus in reading order; folders are searched for all known kinds.

    Raises:
        CorpusError: A path does not exist, a file is of no known kind, a folder has no file of a
            known kind, or nothing was given.
    """
    if not paths:
        raise CorpusError("no corpus was given: name at least one file or folder")
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p) is not None)
            if not found:
                raise CorpusError(f"the folder {path} has no file of a known kind ({_known()})")
            files += found
        elif not path.exists():
            raise CorpusError(f"the corpus {path} does not exist")
        elif _kind(path) is None:
            raise CorpusError(f"{path} is of no known kind: expected {_known()}")
        else:
            files.append(path)
    return files


def read_corpus(files: Sequence[Path]) -> Iterator[Document]:
    """Every document of `files` (of `corpus_files`).

    Raises:
        CorpusError: A file cannot be read or is damaged, or a line is no document; the message
            names file, line and field.
    """
    for path in files:
        reader = _kind(path)
        if reader is None:
            raise CorpusError(f"{path} is of no known kind: expected {_known()}")
        try:
            yield from reader(path)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise CorpusError(f"{path} cannot be read: {error}") from error


def _known() -> str:
    return ", ".join((*_JSONL_SUFFIXES, _PARQUET_SUFFIX, *_TEXT_SUFFIXES))


def _kind(path: Path) -> Callable[[Path], Iterator[Document]] | None:
    name = path.name.lower()
    if name.endswith(_JSONL_SUFFIXES):
        return _read_jsonl
    if name.endswith(_PARQUET_SUFFIX):
        return _read_parquet
    return _read_text if name.endswith(_TEXT_SUFFIXES) else None


def _open(path: Path) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        case ".xz":
            return lzma.open(path, "rb")
        case ".zst":
            return io.BufferedReader(_ZstandardStream(path), _SAMPLE_BYTES)
        case _:
            return path.open("rb")


class _ZstandardStream(io.RawIOBase):
    """Decompresses zstandard frames, and raises OSError where they are damaged or cut off."""

    def __init__(self, path: Path) -> None:
        from zstandard import ZstdDecompressor, ZstdError

        self._file = path.open("rb")
        self._start = ZstdDecompressor().decompressobj
        self._frame = self._start()
        self._is_inside = False
        self._error = ZstdError
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data or self._file.read(_SAMPLE_BYTES)
            if not packed:
                if self._is_inside:
                    raise OSError("the compressed file ends in the middle")
                return 0
            if self._frame.eof:
                self._frame = self._start()
            try:
                self._ready = self._frame.decompress(packed)
            except self._error as error:
                raise OSError(str(error)) from error
            self._is_inside = not self._frame.eof
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_jsonl(path: Path) -> Iterator[Document]:
    with _open(path) as lines:
        number = 0
        while line := lines.readline(MAX_DOCUMENT_BYTES + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > MAX_DOCUMENT_BYTES:
                raise CorpusError(f"{where} is longer than {MAX_DOCUMENT_BYTES} bytes")
            if line.strip():
                yield _record(_parse(line, where), path, str(number), where)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: byte {error.start} is not UTF-8: {error.reason}") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise CorpusError(f"{where} is no JSON object but a {type(record).__name__}")
    return record


def _record(record: dict[str, Any], path: Path, number: str, where: str) -> Document:
    identifier, title = record.get("id"), record.get("title")
    if type(identifier) is int:
        identifier = str(identifier)
    elif identifier is None:
        identifier = f"{path.name}:{number}"
    identifier = _require_text(identifier, "id", where)
    title = "" if title is None else _require_text(title, "title", where)
    text = _require_text(record.get("text"), "text", where)
    return Document(id=identifier, title=title, source=path.name, text=text)


def _require_text(value: object, field: str, where: str) -> str:
    if not isinstance(value, str):
        found = "missing" if value is None else f"a {type(value).__name__}, not a string"
        raise CorpusError(f"{where}: field {field!r} is {found}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: field {field!r} holds the lone surrogate U+{ord(value[error.start]):04X} "
            f"at index {error.start}"
        ) from None
    return value


def _read_parquet(path: Path) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [n for n in ("id", "title", "text") if n in file.schema_arrow.names]
            if "text" not in names:
                raise CorpusError(f"{path}: field 'text' is missing")
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield _record(row, path, str(number), f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error


def _read_text(path: Path) -> Iterator[Document]:
    if (size := path.stat().st_size) > MAX_DOCUMENT_BYTES:
        raise CorpusError(f"{path} has {size} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start} is not UTF-8: {error.reason}") from None
    yield Document(id=str(path), title=path.stem, source=path.name, text=text)


Sample: TypeAlias = tuple[str, int, str]
"""What a corpus file is recognised by: name, bytes, and a hash of its ends."""


def sample_file(path: Path) -> Sample:
    """Recognise a corpus file without reading it all.

    Raises:
        CorpusError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            ends = file.read(_SAMPLE_BYTES)
            file.seek(max(0, size - _SAMPLE_BYTES))
            ends += file.read(_SAMPLE_BYTES)
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    return path.name, size, hashlib.sha256(ends).hexdigest()
