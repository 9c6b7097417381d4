"""Write a model as a GGUF file of architecture `command-r`, which llama.cpp runs.

llama.cpp's Command-R is PaLM's parallel block with interleaved RoPE and a logit scale, for shapes
that its loader fixes in code; `obstacles` lists them. The tokenizer goes into the file: its
SentencePiece kind merges by score as ours does. Two texts differ there: U+2581 counts as a space.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.checkpoint import cohere
from model.checkpoint.export_tokenizer import require_bpe
from model.checkpoint.layout import StoredTensor
from model.checkpoint.pretrained import Pretrained
from model.checkpoint.quantization import contracted_axes
from model.checkpoint.rope_layout import with_rope_style
from model.config import PaLMConfig
from model.errors import ExportError
from model.parameters import flatten
from model.tokenizer import SentencePieceTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

# llama.cpp builds q/k norms into Command-R from this depth on (Command-R+), and not below it.
_QK_NORM_FROM_LAYERS = 64


def obstacles(config: PaLMConfig) -> list[str]:
    """Why `config`, with interleaved RoPE, is no `command-r` for llama.cpp; empty when it is."""
    width = config.num_heads * config.head_dim
    needs_qk_norm = config.num_layers >= _QK_NORM_FROM_LAYERS
    checks = {
        f"activation={config.activation!r} (it has SiLU)": config.activation != "silu",
        "tied_embeddings=False (its head is the embedding)": not config.tied_embeddings,
        f"num_heads·head_dim={width} (it is d_model={config.d_model} there)": (
            width != config.d_model
        ),
        f"qk_norm={config.qk_norm} with num_layers={config.num_layers} (it has q/k norms from "
        f"{_QK_NORM_FROM_LAYERS} layers on and only there)": config.qk_norm != needs_qk_norm,
    }
    return cohere.obstacles(config) + [reason for reason, blocks in checks.items() if blocks]


def export_gguf(pretrained: Pretrained, out: Path) -> None:
    """Write one `.gguf` file; norms are float32, the rest keeps the type it was loaded as.

    Args:
        pretrained: The model, with a SentencePiece tokenizer.
        out: The file; it appears only when it is complete.

    Raises:
        ExportError: llama.cpp has no such block, or the tokenizer is of another kind, or the
            `gguf` package is not installed; the message says which.
    """
    try:
        import gguf
    except ImportError as error:
        raise ExportError("the package 'gguf' is missing: install talipot[export]") from error
    config, flat = with_rope_style(pretrained.config, flatten(pretrained.params), "interleaved")
    if reasons := obstacles(config):
        raise ExportError(
            f"{pretrained.name!r} cannot be written as command-r: {'; '.join(reasons)}"
        )
    tokenizer = pretrained.tokenizer
    if not isinstance(tokenizer, SentencePieceTokenizer):
        found = "none" if tokenizer is None else type(tokenizer).__name__
        raise ExportError(f"GGUF export needs a SentencePiece tokenizer, found {found}")
    require_bpe(tokenizer)
    out = Path(out)
    if out.is_dir():
        raise ExportError(f"{out}: is a folder, expected a file name such as model.gguf")
    out.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own folder, not of `mkstemp`, so that it gets ordinary permissions.
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out.parent) as stage:
        partial = Path(stage) / "model.gguf"
        writer = gguf.GGUFWriter(partial, "command-r")
        _add_config(writer, pretrained.name, config, np.dtype(flat["embedding"].dtype))
        _add_tokenizer(writer, tokenizer, config.vocab_size)
        _write_tensors(writer, config, flat)
        writer.close()
        partial.replace(out)


def _add_config(writer: GGUFWriter, name: str, config: PaLMConfig, dtype: np.dtype[Any]) -> None:
    from gguf import LlamaFileType

    file_types = {
        "float32": LlamaFileType.ALL_F32,
        "float16": LlamaFileType.MOSTLY_F16,
        "bfloat16": LlamaFileType.MOSTLY_BF16,
    }
    writer.add_name(name)
    writer.add_file_type(file_types[str(dtype)])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_logit_scale(config.resolved_logit_scale)


def _add_tokenizer(writer: GGUFWriter, tokenizer: SentencePieceTokenizer, vocab_size: int) -> None:
    from gguf import TokenType

    kinds = {
        "normal": TokenType.NORMAL,
        "unknown": TokenType.UNKNOWN,
        "control": TokenType.CONTROL,
        "unused": TokenType.UNUSED,
        "byte": TokenType.BYTE,
    }
    ids = range(tokenizer.vocab_size)
    # Rows of the embedding past the tokenizer's ids need an entry too.
    padding = range(tokenizer.vocab_size, vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(
        [tokenizer.id_to_piece(i) for i in ids] + [f"<unused:{i}>" for i in padding]
    )
    writer.add_token_scores([tokenizer.piece_score(i) for i in ids] + [0.0 for _ in padding])
    writer.add_token_types(
        [kinds[tokenizer.piece_kind(i)] for i in ids] + [TokenType.UNUSED for _ in padding]
    )
    writer.add_eos_token_id(tokenizer.eos_ids[0])
    # llama.cpp takes id 1 for a missing bos; ours opens a text with the end of the one before.
    writer.add_bos_token_id(tokenizer.eos_ids[0] if tokenizer.bos_id is None else tokenizer.bos_id)
    writer.add_unk_token_id(tokenizer.unk_id)
    if tokenizer.pad_id is not None:
        writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)


def _write_tensors(writer: GGUFWriter, config: PaLMConfig, flat: Mapping[str, Any]) -> None:
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map

    kinds = {
        "float32": GGMLQuantizationType.F32,
        "float16": GGMLQuantizationType.F16,
        "bfloat16": GGMLQuantizationType.BF16,
    }
    names = get_tensor_name_map(MODEL_ARCH.COMMAND_R, config.num_layers)
    layout = cohere.layout(config)
    for theirs, tensor in layout.items():
        name = names.get_name(theirs, try_suffixes=(".weight",))
        if name is None:
            raise ExportError(f"the installed gguf has no command-r name for {theirs!r}")
        dtype = _stored_dtype(tensor, flat)
        num_bytes = math.prod(tensor.shape) * dtype.itemsize
        writer.add_tensor_info(name, tensor.shape, dtype, num_bytes, kinds[str(dtype)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in layout.values():
        values = tensor.join(np.asarray(flat[tensor.names[0]]))
        writer.write_tensor_data(
            np.ascontiguousarray(values, dtype=_stored_dtype(tensor, flat)).view(np.uint8)
        )


def _stored_dtype(tensor: StoredTensor, flat: Mapping[str, Any]) -> np.dtype[Any]:
    """llama.cpp multiplies by norms in float32 only."""
    name = tensor.names[0]
    return np.dtype(np.float32 if contracted_axes(name) is None else flat[name].dtype)
