"""Hugging Face folders: which model families we read and write, and how their weights come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from model.checkpoint import cohere, falcon
from model.checkpoint.config_keys import ConfigKeys
from model.checkpoint.host_array import HostArray
from model.checkpoint.layout import Layout as StoredLayout
from model.checkpoint.placement import place_parameters
from model.checkpoint.safetensors_file import have_same_bytes
from model.checkpoint.store import TensorStore
from model.config import PaLMConfig
from model.errors import CheckpointError, ConfigError
from model.layout_rules import Layout
from model.parameters import Params

CONFIG_FILE = "config.json"

_FLOAT_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Rotary frequencies that old versions saved as buffers: they follow from `rope_theta`.
_DERIVED_SUFFIX = ".rotary_emb.inv_freq"
_HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A `model_type` of transformers.

    Attributes:
        read_config: Our config from its keys and a name.
        write_config: Its config from ours.
        obstacles: Why a config of ours cannot be written as this family; empty when it can.
        layout: Its tensors for a config of ours.
        embedding: Its name for the embedding matrix.
    """

    read_config: Callable[[ConfigKeys, str], PaLMConfig]
    write_config: Callable[[PaLMConfig], dict[str, Any]]
    obstacles: Callable[[PaLMConfig], list[str]]
    layout: Callable[[PaLMConfig], StoredLayout]
    embedding: str


FAMILIES: Mapping[str, Family] = {
    "cohere": Family(
        read_config=cohere.read_config,
        write_config=cohere.write_config,
        obstacles=cohere.obstacles,
        layout=cohere.layout,
        embedding="model.embed_tokens.weight",
    ),
    "falcon": Family(
        read_config=falcon.read_config,
        write_config=falcon.write_config,
        obstacles=falcon.obstacles,
        layout=falcon.layout,
        embedding="transformer.word_embeddings.weight",
    ),
}


def read_document(path: Path, document: Mapping[str, Any]) -> tuple[Family, PaLMConfig]:
    """The family and shape of a model, from the `config.json` at `path`.

    Raises:
        CheckpointError: It is of another family, or uses what our forward pass lacks; the message
            names the key.
    """
    model_type: Any = document.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"{path}: 'model_type': found {model_type!r}, expected one of {sorted(FAMILIES)}"
        )
    family = FAMILIES[model_type]
    try:
        return family, family.read_config(ConfigKeys(path, document), path.resolve().parent.name)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def load_huggingface(
    directory: Path,
    document: Mapping[str, Any],
    *,
    dtype: np.dtype[Any] | None,
    mesh: Mesh | None,
    layout: Layout | None,
) -> tuple[PaLMConfig, Params]:
    """Load a folder that transformers wrote.

    Args:
        directory: The folder.
        document: Its `config.json`.
        dtype: What to load the weights as; None is the stored type, float32 where types differ.
        mesh: Where to shard them; None is the default device.
        layout: How to split them; see `model.checkpoint.placement`.

    Raises:
        CheckpointError: The model is of another family, or uses what our forward pass lacks, or
            its files are damaged; the message names the key or tensor.
    """
    family, config = read_document(directory / CONFIG_FILE, document)
    store, stored = TensorStore(directory), family.layout(config)
    _drop_derived(store)
    if config.tied_embeddings:
        _drop_tied_head(store, family.embedding)
    store.check(
        {name: tensor.shape for name, tensor in stored.items()},
        dict.fromkeys(stored, _FLOAT_DTYPES),
    )
    if dtype is None:
        dtype = _common_dtype(store)
    arrays = _arrays(store, stored)
    return config, place_parameters(config, arrays, dtype=dtype, mesh=mesh, layout=layout)


def _arrays(store: TensorStore, layout: StoredLayout) -> Iterator[tuple[str, HostArray]]:
    # In the order of the files, so that a disk is read from front to back.
    for name in sorted(layout, key=lambda n: (store.entries[n].path, store.entries[n].start)):
        tensor = layout[name]
        yield from zip(tensor.names, tensor.split(store.read(name)), strict=True)


def _common_dtype(store: TensorStore) -> np.dtype[Any]:
    stored = {entry.dtype for entry in store.entries.values()}
    return _FLOAT_DTYPES[stored.pop()] if len(stored) == 1 else _FLOAT_DTYPES["F32"]


def _drop_derived(store: TensorStore) -> None:
    for name in [name for name in store.entries if name.endswith(_DERIVED_SUFFIX)]:
        del store.entries[name]


def _drop_tied_head(store: TensorStore, embedding: str) -> None:
    """Accept a tied matrix under either name, and under both if they agree."""
    if _HEAD not in store.entries:
        return
    if embedding not in store.entries:
        store.entries[embedding] = store.entries.pop(_HEAD)
        return
    head, table = store.entries.pop(_HEAD), store.entries[embedding]
    if (head.dtype, head.shape) == (table.dtype, table.shape) and have_same_bytes(head, table):
        return
    raise CheckpointError(
        f"{store.directory}: tensor {_HEAD!r} differs from {embedding!r}, but "
        "'tie_word_embeddings' says that they are one: set it to false or remove the tensor"
    )
