"""Write a model as a Hugging Face folder that transformers loads without any code of ours."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint.export_tokenizer import tokenizer_config, tokenizer_json
from model.checkpoint.host_array import HostArray
from model.checkpoint.huggingface import CONFIG_FILE, FAMILIES
from model.checkpoint.json_file import to_json
from model.checkpoint.layout import StoredTensor
from model.checkpoint.pretrained import Pretrained
from model.checkpoint.rope_layout import with_rope_style
from model.checkpoint.safetensors_file import TensorSource, write_safetensors
from model.checkpoint.staging import staged_directory, write_durably
from model.checkpoint.store import INDEX_FILE, WEIGHTS_FILE
from model.config import PaLMConfig, RopeStyle
from model.errors import ExportError
from model.parameters import flatten
from model.tokenizer import SentencePieceTokenizer, Tokenizer

MAX_SHARD_BYTES = 5_000_000_000
"""Weight files are split at this size."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "generation_config.json",
)
# The rotary layout that each family is written in; converting to it is exact.
_ROPE_STYLES: Mapping[str, RopeStyle] = {"cohere": "interleaved", "falcon": "half"}


def export_huggingface(
    pretrained: Pretrained, out: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write `config.json`, safetensors weights, and the tokenizer if there is one.

    PaLM and its gated relatives become a `cohere` folder, models of Falcon's shape a `falcon` one.

    Args:
        pretrained: The model; weights keep the type they were loaded as.
        out: Folder to write; other files in it are left alone.
        max_shard_bytes: Size at which weights are split into several files.

    Raises:
        ExportError: No family of transformers has such a block, or the tokenizer cannot be
            expressed; the message says why.
    """
    out = Path(out)
    model_type, config, flat = _choose_family(pretrained)
    family = FAMILIES[model_type]
    dtype = np.dtype(flat["embedding"].dtype)
    sources = {
        name: TensorSource(
            dtype=dtype, shape=tensor.shape, load=functools.partial(_join, tensor, flat)
        )
        for name, tensor in family.layout(config).items()
    }
    document = family.write_config(config) | {"dtype": str(dtype)}
    replaces = ("*.safetensors", INDEX_FILE, *_TOKENIZER_FILES)
    with staged_directory(out, last=CONFIG_FILE, replaces=replaces) as stage:
        _write_weights(stage, sources, max_shard_bytes)
        # Without these, transformers would take the ids of Cohere's own vocabulary.
        document |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        if pretrained.tokenizer is not None:
            document |= _write_tokenizer(stage, pretrained.tokenizer, config)
        write_durably(stage / CONFIG_FILE, to_json(document))


def _choose_family(pretrained: Pretrained) -> tuple[str, PaLMConfig, dict[str, Any]]:
    refusals = []
    for model_type, family in FAMILIES.items():
        config, flat = with_rope_style(
            pretrained.config, flatten(pretrained.params), _ROPE_STYLES[model_type]
        )
        reasons = family.obstacles(config)
        if not reasons:
            return model_type, config, flat
        refusals.append(f"not as {model_type}: {'; '.join(reasons)}")
    raise ExportError(
        f"{pretrained.name!r} cannot be written for transformers: " + ". ".join(refusals)
    )


def _join(tensor: StoredTensor, flat: Mapping[str, Any]) -> HostArray:
    return tensor.join(*(np.asarray(flat[name]) for name in tensor.names))


def _write_weights(stage: Path, sources: Mapping[str, TensorSource], max_bytes: int) -> None:
    shards = list(_shards(sources, max_bytes))
    if len(shards) == 1:
        write_safetensors(stage / WEIGHTS_FILE, sources, {"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(stage / file, {name: sources[name] for name in shard}, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(_num_bytes(source) for source in sources.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_durably(stage / INDEX_FILE, to_json(index))


def _shards(sources: Mapping[str, TensorSource], max_bytes: int) -> Iterator[list[str]]:
    """Names of consecutive tensors that fit in one file; a larger tensor has a file of its own."""
    shard: list[str] = []
    size = 0
    for name, source in sources.items():
        if shard and size + _num_bytes(source) > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += _num_bytes(source)
    yield shard


def _num_bytes(source: TensorSource) -> int:
    return math.prod(source.shape) * source.dtype.itemsize


def _write_tokenizer(stage: Path, tokenizer: Tokenizer, config: PaLMConfig) -> dict[str, Any]:
    """Write the tokenizer's files; returns the special ids for `config.json`."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        write_durably(stage / "tokenizer.json", tokenizer_json(tokenizer))
        described = tokenizer_config(tokenizer, config.max_seq_len)
        pad_id = tokenizer.pad_id
    else:
        tokenizer.save(stage)
        described = {"tokenizer_class": "PreTrainedTokenizerFast"} | {
            role: tokenizer.id_to_piece(token_id)
            for role, token_id in (
                ("bos_token", tokenizer.bos_id),
                ("eos_token", next(iter(tokenizer.eos_ids), None)),
            )
            if token_id is not None
        }
        pad_id = None
    write_durably(stage / "tokenizer_config.json", to_json(described))
    ids = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": _one_or_all(tokenizer.eos_ids),
        "pad_token_id": pad_id,
    }
    write_durably(stage / "generation_config.json", to_json(ids))
    return ids


def _one_or_all(ids: tuple[int, ...]) -> int | list[int] | None:
    if not ids:
        return None
    return ids[0] if len(ids) == 1 else list(ids)
