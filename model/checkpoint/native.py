"""Talipot's own checkpoint folder.

- `config.json`: format, version, weight format, the model's config, free metadata.
- `model.safetensors`: one tensor a parameter, under its dotted name; int8 ones with their scales.
- `tokenizer.model`: where the model has a tokenizer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from model.checkpoint.host_array import HostArray
from model.checkpoint.json_file import to_json
from model.checkpoint.placement import place_parameters
from model.checkpoint.quantization import (
    SCALE_SUFFIX,
    channel_scales,
    contracted_axes,
    dequantize,
    quantize,
    scale_shape,
)
from model.checkpoint.safetensors_file import (
    TensorSource,
    dtype_name,
    write_safetensors,
)
from model.checkpoint.staging import staged_directory, write_durably
from model.checkpoint.store import INDEX_FILE, WEIGHTS_FILE, TensorStore
from model.config import PaLMConfig
from model.errors import CheckpointError, ConfigError
from model.layout_rules import Layout
from model.parameters import Params, declare_parameters, flatten
from model.tokenizer import Tokenizer

FORMAT = "talipot"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"

WeightFormat = Literal["float32", "bfloat16", "int8"]
"""How kernels and embeddings are stored; norms are float32 in each."""

# Older files of a checkpoint that do not belong to the new one.
_SUPERSEDED = (
    "*.safetensors",
    INDEX_FILE,
    "tokenizer.model",
    "tokenizer.json",
    "generation_config.json",
)
_FLOAT32 = np.dtype(np.float32)
_KERNEL_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": _FLOAT32,
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
}


def save_pretrained(
    directory: Path,
    config: PaLMConfig,
    params: Params,
    tokenizer: Tokenizer | None,
    *,
    weight_format: WeightFormat = "float32",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder; a reader finds the old one, the new one, or none, never a mix.

    Args:
        directory: Where to; other files in it are left alone.
        config: The model's shape.
        params: Its parameters.
        tokenizer: Its tokenizer, if it has one.
        weight_format: `float32`, `bfloat16`, or `int8` with a scale for each output channel.
        metadata: Anything JSON can hold; it is stored in `config.json` and not read back.

    Raises:
        CheckpointError: `params` does not fit `config`, or `weight_format` is unknown, or a value
            that is not finite cannot become int8.
    """
    if weight_format not in _KERNEL_DTYPES:
        raise CheckpointError(
            f"weight_format={weight_format!r} must be one of {get_args(WeightFormat)}"
        )
    directory = Path(directory)
    flat = flatten(params)
    _check_parameters(config, flat)
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weight_format": weight_format,
        "config": config.to_dict(),
        "metadata": dict(metadata or {}),
    }
    text = to_json(document)
    with staged_directory(directory, last=CONFIG_FILE, replaces=_SUPERSEDED) as stage:
        write_safetensors(stage / WEIGHTS_FILE, _sources(flat, weight_format))
        if tokenizer is not None:
            tokenizer.save(stage)
        write_durably(stage / CONFIG_FILE, text)


def load_native(
    directory: Path,
    document: Mapping[str, Any],
    *,
    dtype: np.dtype[Any] | None,
    mesh: Mesh | None,
    layout: Layout | None,
) -> tuple[PaLMConfig, Params]:
    """Load what `save_pretrained` wrote.

    Args:
        directory: The folder.
        document: Its `config.json`.
        dtype: What to load the weights as; None is the stored type, and float32 for int8.
        mesh: Where to shard them; None is the default device.
        layout: How to split them; see `model.checkpoint.placement`.

    Raises:
        CheckpointError: The folder is damaged or of another version.
    """
    config, weight_format = read_document(directory / CONFIG_FILE, document)
    store = TensorStore(directory)
    expected = _expected(config, weight_format)
    store.check(
        {name: shape for name, (shape, _) in expected.items()},
        {name: {dtype_name(stored)} for name, (_, stored) in expected.items()},
    )
    if dtype is None:
        dtype = _FLOAT32 if weight_format == "int8" else _KERNEL_DTYPES[weight_format]
    arrays = _arrays(config, store)
    return config, place_parameters(config, arrays, dtype=dtype, mesh=mesh, layout=layout)


def read_document(path: Path, document: Mapping[str, Any]) -> tuple[PaLMConfig, WeightFormat]:
    """The model's shape and how its weights are stored, from the `config.json` at `path`.

    Raises:
        CheckpointError: It is of another version or damaged; the message names the key.
    """
    version, weight_format = document.get("format_version"), document.get("weight_format")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: 'format_version': found {version!r}, expected {FORMAT_VERSION}"
        )
    if weight_format not in _KERNEL_DTYPES:
        raise CheckpointError(
            f"{path}: 'weight_format': found {weight_format!r}, expected one of "
            f"{get_args(WeightFormat)}"
        )
    fields = document.get("config")
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: 'config': found {fields!r}, expected an object")
    try:
        return PaLMConfig.from_dict(fields), weight_format
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: 'config': {error}") from error


def _stored_dtype(name: str, weight_format: WeightFormat) -> np.dtype[Any]:
    return _FLOAT32 if contracted_axes(name) is None else _KERNEL_DTYPES[weight_format]


def _expected(
    config: PaLMConfig, weight_format: WeightFormat
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every tensor in the file."""
    expected = {}
    for name, spec in declare_parameters(config).items():
        stored = _stored_dtype(name, weight_format)
        expected[name] = (spec.shape, stored)
        if stored == np.int8:
            expected[name + SCALE_SUFFIX] = (scale_shape(name, spec.shape), _FLOAT32)
    return expected


def _arrays(config: PaLMConfig, store: TensorStore) -> Iterator[tuple[str, HostArray]]:
    for name in declare_parameters(config):
        if name + SCALE_SUFFIX in store.entries:
            yield name, dequantize(name, store.read(name), store.read(name + SCALE_SUFFIX))
        else:
            yield name, store.read(name)


def _check_parameters(config: PaLMConfig, flat: Mapping[str, Any]) -> None:
    specs = declare_parameters(config)
    for name in sorted(specs.keys() ^ flat.keys()):
        problem = "unknown" if name in flat else "missing"
        raise CheckpointError(f"{problem} parameter {name!r}")
    for name, spec in specs.items():
        if tuple(flat[name].shape) != spec.shape:
            raise CheckpointError(
                f"parameter {name!r}: found shape {tuple(flat[name].shape)}, expected {spec.shape}"
            )


def _sources(flat: Mapping[str, Any], weight_format: WeightFormat) -> dict[str, TensorSource]:
    sources = {}
    for name, array in flat.items():
        stored = _stored_dtype(name, weight_format)
        load: Callable[[], HostArray] = functools.partial(np.asarray, array)
        if stored == np.int8:
            scales = channel_scales(name, np.asarray(array))
            load = functools.partial(_codes, name, array, scales)
            sources[name + SCALE_SUFFIX] = TensorSource(
                dtype=_FLOAT32, shape=scales.shape, load=functools.partial(np.asarray, scales)
            )
        sources[name] = TensorSource(dtype=stored, shape=tuple(array.shape), load=load)
    return sources


def _codes(name: str, array: Any, scales: HostArray) -> HostArray:
    return quantize(name, np.asarray(array), scales)
