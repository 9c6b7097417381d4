"""A checkpoint folder as one set of named tensors, whether in one file or in many shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from model.checkpoint.host_array import HostArray
from model.checkpoint.json_file import read_object
from model.checkpoint.safetensors_file import TensorEntry, read_header, read_tensor
from model.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SUFFIX = ".safetensors"

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class TensorStore:
    """The tensors of a checkpoint folder; nothing but headers is read until `read`."""

    def __init__(self, directory: Path) -> None:
        """Read the headers of all weight files.

        Raises:
            CheckpointError: No safetensors weights are there, or they are damaged, or the index and
                the shards disagree, or a tensor is stored twice.
        """
        self.directory = directory
        single, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
        if single.exists() and index.exists():
            raise CheckpointError(
                f"{directory}: holds both {WEIGHTS_FILE} and {INDEX_FILE}; remove the stale one"
            )
        if single.exists():
            self.entries = read_header(single)
        elif index.exists():
            self.entries = _read_shards(directory, index)
        else:
            raise CheckpointError(_no_weights(directory))

    def read(self, name: str) -> HostArray:
        """The values of one tensor."""
        return read_tensor(self.entries[name])

    def check(
        self, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, Collection[str]]
    ) -> None:
        """Hold the tensors against what the model needs.

        Args:
            shapes: Every expected tensor's shape.
            dtypes: The types that each may have, as safetensors calls them.

        Raises:
            CheckpointError: A tensor is unknown, missing, or of another shape or type.
        """
        if unknown := sorted(self.entries.keys() - shapes.keys()):
            raise CheckpointError(
                f"{self.directory}: unknown tensor {_listed(unknown)}: this model has no such "
                "parameter"
            )
        if missing := sorted(shapes.keys() - self.entries.keys()):
            raise CheckpointError(f"{self.directory}: missing tensor {_listed(missing)}")
        for name, entry in self.entries.items():
            if entry.shape != shapes[name]:
                raise CheckpointError(
                    f"{entry.path}: tensor {name!r}: found shape {list(entry.shape)}, "
                    f"expected {list(shapes[name])}"
                )
            if entry.dtype not in dtypes[name]:
                raise CheckpointError(
                    f"{entry.path}: tensor {name!r}: found dtype {entry.dtype}, "
                    f"expected {' or '.join(sorted(dtypes[name]))}"
                )


def _listed(names: list[str], limit: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _no_weights(directory: Path) -> str:
    pickles = sorted(
        path.name for path in directory.iterdir() if path.suffix.lower() in _PICKLE_SUFFIXES
    )
    wanted = f"neither {WEIGHTS_FILE} nor {INDEX_FILE}"
    if pickles:
        return (
            f"{directory}: found {', '.join(pickles[:3])} but {wanted}; pickle files can run code "
            "and are never loaded: convert the weights to safetensors"
        )
    return f"{directory}: has {wanted}"


def _read_shards(directory: Path, index: Path) -> dict[str, TensorEntry]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: 'weight_map' is not an object with entries")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or Path(shard).suffix != SUFFIX:
            raise CheckpointError(
                f"{index}: tensor {name!r} is mapped to {shard!r}, expected the name of a "
                f"{SUFFIX} file in the same folder"
            )
        if not (directory / shard).is_file():
            raise CheckpointError(f"{index}: names the shard {shard!r}, which is not there")
    entries: dict[str, TensorEntry] = {}
    for shard in sorted(set(weight_map.values())):
        for name, entry in read_header(directory / shard).items():
            if name in entries:
                raise CheckpointError(
                    f"{directory}: duplicate tensor {name!r}: in {entries[name].path.name} and "
                    f"in {shard}"
                )
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{index}: tensor {name!r}: found in {shard}, but the index maps it to "
                    f"{weight_map.get(name)!r}"
                )
            entries[name] = entry
    if absent := sorted(weight_map.keys() - entries.keys()):
        raise CheckpointError(
            f"{index}: tensor {absent[0]!r} is not in its shard {weight_map[absent[0]]!r}"
        )
    return entries
