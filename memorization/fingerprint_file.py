"""The file of a text-free index: fingerprints, where they are, and the documents' names.

A JSON header names every block with its length and SHA-256; then follow the blocks. Hashes are
random bytes and stay as they are; distances between fingerprints and the table of documents
compress well.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.errors import TrainingIndexError
from memorization.rolling_hash import UInt64
from memorization.winnowing import Winnowing

_MAGIC = b"TALIPOT-FINGERPRINTS\n"
_VERSION = 1
_BLOCKS = ("hashes", "distances", "documents")
_MAX_HEADER_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Everything that the file holds.

    Attributes:
        winnowing: How the text was thinned out.
        tokenizer_identity: Identity of the tokenizer.
        vocab_size: Its number of ids.
        hashes: uint64[kept], in corpus order.
        positions: First token of each kept k-gram, counted over all documents, int64[kept].
        starts: First token of each document, and the end of the last, int64[documents + 1].
        names: (id, title, source) of each document.
    """

    winnowing: Winnowing
    tokenizer_identity: str
    vocab_size: int
    hashes: UInt64
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    names: list[tuple[str, str, str]]


def write_fingerprints(path: Path, prints: Fingerprints) -> None:
    """Write the file beside its place and move it there, so that it is whole or absent."""
    blocks = {
        "hashes": _pack_hashes(prints.hashes, prints.winnowing.hash_bits),
        "distances": lzma.compress(_byte_planes(np.diff(prints.positions, prepend=0)), preset=9),
        "documents": lzma.compress(_pack_documents(prints), preset=9),
    }
    header = {
        "version": _VERSION,
        "winnowing": dataclasses.asdict(prints.winnowing),
        "tokenizer": prints.tokenizer_identity,
        "vocab_size": prints.vocab_size,
        "fingerprints": len(prints.hashes),
        "blocks": {
            name: [len(block), hashlib.sha256(block).hexdigest()] for name, block in blocks.items()
        },
    }
    head = json.dumps(header, sort_keys=True).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.writelines((_MAGIC, head, *blocks.values()))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_fingerprints(path: Path) -> Fingerprints:
    """Read and check the file.

    Raises:
        TrainingIndexError: It is missing, damaged, or of another version.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise TrainingIndexError(f"{path} is no file of fingerprints")
            header = json.loads(file.readline(_MAX_HEADER_BYTES))
            if header["version"] != _VERSION:
                raise TrainingIndexError(
                    f"{path} has version {header['version']}, and this release reads {_VERSION}"
                )
            blocks = {name: file.read(header["blocks"][name][0]) for name in _BLOCKS}
        for name, block in blocks.items():
            if hashlib.sha256(block).hexdigest() != header["blocks"][name][1]:
                raise TrainingIndexError(f"{path} is damaged: block {name!r} has another SHA-256")
        return _unpack(header, blocks)
    except OSError as error:
        raise TrainingIndexError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, lzma.LZMAError) as error:
        raise TrainingIndexError(f"{path} is damaged: {error!r}") from error


def _unpack(header: dict[str, Any], blocks: dict[str, bytes]) -> Fingerprints:
    winnowing = Winnowing(**header["winnowing"])
    count = header["fingerprints"]
    planes = np.frombuffer(lzma.decompress(blocks["distances"]), np.uint8).reshape(4, count)
    distances = np.ascontiguousarray(planes.T).view("<u4").reshape(count)
    documents = json.loads(lzma.decompress(blocks["documents"]))
    return Fingerprints(
        winnowing=winnowing,
        tokenizer_identity=header["tokenizer"],
        vocab_size=header["vocab_size"],
        hashes=_unpack_hashes(blocks["hashes"], winnowing.hash_bits),
        positions=np.cumsum(distances.astype(np.int64)),
        starts=np.cumsum([0, *documents["tokens"]]).astype(np.int64),
        names=list(zip(documents["ids"], documents["titles"], documents["sources"], strict=True)),
    )


def _pack_documents(prints: Fingerprints) -> bytes:
    columns = {
        "ids": [name[0] for name in prints.names],
        "titles": [name[1] for name in prints.names],
        "sources": [name[2] for name in prints.names],
        "tokens": np.diff(prints.starts).tolist(),
    }
    return json.dumps(columns, ensure_ascii=False).encode()


def _pack_hashes(hashes: UInt64, bits: int) -> bytes:
    return hashes.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()


def _unpack_hashes(block: bytes, bits: int) -> UInt64:
    packed = np.frombuffer(block, np.uint8).reshape(-1, bits // 8)
    wide = np.zeros((len(packed), 8), np.uint8)
    wide[:, : bits // 8] = packed
    return wide.view("<u8").reshape(-1).astype(np.uint64)


def _byte_planes(values: NDArray[np.int64]) -> bytes:
    """The first bytes of all values, then the second, …: a compressor sees four even streams."""
    return values.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()
