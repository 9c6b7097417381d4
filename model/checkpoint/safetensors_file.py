"""Safetensors files, read and written one tensor at a time.

The format is eight bytes of header length (little-endian), a JSON header, and the tensors' bytes.
The `safetensors` library maps a file into memory, and touched pages count as resident until the
map goes; reading by plain file calls keeps the peak at the one tensor in hand. The tests hold
these files against the library in both directions.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from model.checkpoint.host_array import HostArray, aligned_empty
from model.checkpoint.json_file import parse_object
from model.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000
_COMPARED_BYTES = 1 << 23
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "I8": np.dtype(np.int8),
}
# Other types of the format, by width in bytes: a file that has them is sound, only not one of ours.
_FOREIGN_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "I32": 4,
    "U32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where one tensor lies.

    Attributes:
        path: The file.
        dtype: The format's name for the type, such as `BF16`.
        shape: Array shape.
        start: Offset of its first byte in the file.
        num_bytes: How many bytes it takes.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSource:
    """A tensor to write: its type and shape, and a call that makes its values when needed."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    load: Callable[[], HostArray]


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The format's name of a numpy type.

    Raises:
        CheckpointError: Checkpoints do not hold that type.
    """
    for name, known in _DTYPES.items():
        if known == dtype:
            return name
    raise CheckpointError(f"dtype {dtype} cannot be stored; known: {sorted(_DTYPES)}")


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file, by name.

    Raises:
        CheckpointError: The file is absent, cut short, or not well-formed; the message has `path`.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            header_bytes = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path}: not a whole safetensors file: {size} bytes, and the first eight "
                    f"announce a header of {header_bytes}"
                )
            raw = file.read(header_bytes)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    header = parse_object(path, raw, "safetensors header")
    header.pop("__metadata__", None)
    entries = {
        name: _entry(path, name, fields, 8 + header_bytes) for name, fields in header.items()
    }
    _check_coverage(path, entries, 8 + header_bytes, size)
    return entries


def read_tensor(entry: TensorEntry) -> HostArray:
    """The values of one tensor, in aligned memory of their own.

    Raises:
        CheckpointError: The type is not one of ours, or the file ends too early.
    """
    if entry.dtype not in _DTYPES:
        raise CheckpointError(f"{entry.path}: dtype {entry.dtype}; expected {sorted(_DTYPES)}")
    values = aligned_empty(entry.shape, _DTYPES[entry.dtype])
    _read_bytes(entry, 0, values.reshape(-1).view(np.uint8))
    return values


def have_same_bytes(first: TensorEntry, second: TensorEntry) -> bool:
    """Whether two stored tensors are equal byte for byte, compared a few megabytes at a time."""
    if first.num_bytes != second.num_bytes:
        return False
    for offset in range(0, first.num_bytes, _COMPARED_BYTES):
        size = min(_COMPARED_BYTES, first.num_bytes - offset)
        left, right = np.empty(size, np.uint8), np.empty(size, np.uint8)
        _read_bytes(first, offset, left)
        _read_bytes(second, offset, right)
        if not np.array_equal(left, right):
            return False
    return True


def _read_bytes(entry: TensorEntry, offset: int, into: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Fill `into` with a tensor's bytes from `offset` on."""
    view = into.data
    done = 0
    try:
        with entry.path.open("rb", buffering=0) as file:
            file.seek(entry.start + offset)
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise CheckpointError(
                        f"{entry.path}: ends {len(view) - done} bytes inside a tensor"
                    )
                done += count
    except OSError as error:
        raise CheckpointError(f"{entry.path}: cannot be read: {error}") from error


def write_safetensors(
    path: Path, tensors: Mapping[str, TensorSource], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors`, one in memory at a time, and flush to disk.

    Wide types come first, so that every tensor is aligned to its item size.
    """
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        source = tensors[name]
        end = offset + math.prod(source.shape) * source.dtype.itemsize
        header[name] = {
            "dtype": dtype_name(source.dtype),
            "shape": list(source.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in order:
            source = tensors[name]
            values = np.asarray(source.load(), dtype=source.dtype, order="C")
            if values.shape != source.shape:
                raise CheckpointError(
                    f"tensor {name!r}: found shape {values.shape}, expected {source.shape}"
                )
            file.write(values.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _entry(path: Path, name: str, fields: Any, data_start: int) -> TensorEntry:
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: tensor {name!r} has no description but {fields!r}")
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    known = _FOREIGN_BYTES | {key: value.itemsize for key, value in _DTYPES.items()}
    if not isinstance(dtype, str) or dtype not in known:
        raise CheckpointError(f"{path}: tensor {name!r} has the unknown dtype {dtype!r}")
    if not _is_naturals(shape) or not _is_naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(
            f"{path}: tensor {name!r} has malformed shape {shape!r} or data_offsets {offsets!r}"
        )
    num_bytes = math.prod(shape) * known[dtype]
    if offsets[1] - offsets[0] != num_bytes:
        raise CheckpointError(
            f"{path}: tensor {name!r} ({dtype} {shape}) takes {num_bytes} bytes, "
            f"found data_offsets {offsets}"
        )
    return TensorEntry(
        path=path,
        dtype=dtype,
        shape=tuple(shape),
        start=data_start + offsets[0],
        num_bytes=num_bytes,
    )


def _is_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_coverage(
    path: Path, entries: Mapping[str, TensorEntry], data_start: int, size: int
) -> None:
    """The tensors must fill the data section without gap or overlap."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].num_bytes)):
        if entry.start != position:
            raise CheckpointError(
                f"{path}: tensor {name!r} starts at byte {entry.start}, expected {position}"
            )
        position += entry.num_bytes
    if position != size:
        raise CheckpointError(
            f"{path}: the file has {size} bytes where its header needs {position}: "
            f"{'cut short' if size < position else 'trailing bytes'}"
        )
