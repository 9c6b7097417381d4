"""Load a model from a folder, whatever kind of checkpoint it holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from model.activations import under_layout
from model.checkpoint import huggingface, native
from model.checkpoint.huggingface import load_huggingface
from model.checkpoint.json_file import read_object
from model.checkpoint.native import CONFIG_FILE, FORMAT, load_native
from model.config import PaLMConfig
from model.errors import CheckpointError
from model.palm import forward
from model.parameters import Params
from model.partition import Placement
from model.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from jax.typing import ArrayLike, DTypeLike

_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
_forward = jax.jit(forward, static_argnums=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model ready to run.

    Attributes:
        name: What it is called.
        config: Its shape.
        params: Its parameters, on their devices.
        tokenizer: Its tokenizer, if its folder has one.
        placement: How the parameters are padded and split, where a layout says so.
    """

    name: str
    config: PaLMConfig
    params: Params
    tokenizer: Tokenizer | None
    placement: Placement | None = None

    def logits(self, token_ids: ArrayLike) -> jax.Array:
        """Logits of whole sequences, without a cache; every new shape is compiled once.

        Args:
            token_ids: int32[B, T], each in [0, vocab_size).

        Returns:
            float32[B, T, V]; position t has seen the tokens up to t.

        Raises:
            ValueError: `token_ids` is not a batch of whole numbers, or one is out of range.
        """
        tokens = np.asarray(token_ids)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"token_ids: found {tokens.dtype}{list(tokens.shape)}, expected int32[B, T]"
            )
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocab_size:
            raise ValueError(
                f"token_ids: found {tokens.min()} to {tokens.max()}, expected ids from 0 to "
                f"{self.config.vocab_size - 1}"
            )
        # Accelerators round float32 products to fewer bits unless told not to.
        with jax.default_matmul_precision("highest"):
            return self._forward(tokens.astype(np.int32))

    def _forward(self, tokens: np.ndarray[Any, np.dtype[np.int32]]) -> jax.Array:
        logits: jax.Array
        if self.placement is None:
            logits = _forward(self.config, self.params, tokens)
            return logits
        padded = self.placement.pad(self.config)
        with under_layout(self.placement.layout, self.placement.mesh):
            logits = _forward(padded, self.params, tokens)
        return logits[..., : self.config.vocab_size]


def load_pretrained(
    path: str | Path,
    *,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
    placement: Placement | None = None,
) -> Pretrained:
    """Load a model: our own format, or a Hugging Face folder of family `cohere` or `falcon`.

    Weights go tensor by tensor from disk to their devices. Pickle files are never opened.

    Args:
        path: The folder.
        dtype: Floating type to load the weights as; None is the stored one (int8: float32).
        mesh: Devices of axes (data, model) to shard them over by `model.partition`; None is the
            default device.
        placement: How to pad and split them instead, for a layout of `model.layout_rules`.

    Raises:
        CheckpointError: The folder is not a checkpoint, is damaged, or needs what our forward pass
            lacks; the message names the file, and the key or tensor.
        TokenizerError: Its tokenizer is damaged.
    """
    directory, document = _open(path)
    load = load_native if document.get("format") == FORMAT else load_huggingface
    layout = None
    if placement is not None:
        mesh, layout = placement.mesh, placement.layout
    config, params = load(directory, document, dtype=_floating(dtype), mesh=mesh, layout=layout)
    return Pretrained(
        name=config.name,
        config=config,
        params=params,
        tokenizer=_load_tokenizer(directory, config),
        placement=placement,
    )


def load_config(path: str | Path) -> PaLMConfig:
    """The shape of the model in a folder that `load_pretrained` takes; reads no weights.

    Raises:
        CheckpointError: As `load_pretrained`, as far as the config tells.
    """
    directory, document = _open(path)
    if document.get("format") == FORMAT:
        return native.read_document(directory / CONFIG_FILE, document)[0]
    return huggingface.read_document(directory / CONFIG_FILE, document)[1]


def _open(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint folder and the object in its `config.json`."""
    directory = Path(path)
    if not directory.is_dir():
        problem = "is a file" if directory.exists() else "does not exist"
        raise CheckpointError(f"{directory}: {problem}, expected a folder with {CONFIG_FILE}")
    return directory, read_object(directory / CONFIG_FILE)


def _floating(dtype: DTypeLike | None) -> np.dtype[Any] | None:
    if dtype is None:
        return None
    resolved = jax.dtypes.canonicalize_dtype(dtype)
    if not jax.numpy.issubdtype(resolved, jax.numpy.floating):
        raise CheckpointError(f"dtype={resolved}: expected a floating type, such as bfloat16")
    return np.dtype(resolved)


def _load_tokenizer(directory: Path, config: PaLMConfig) -> Tokenizer | None:
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        return None
    tokenizer = load_tokenizer(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, expected at most the "
            f"model's vocab_size={config.vocab_size}"
        )
    return tokenizer
