"""The embedded scorer's weights: what they are, and their file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.errors import CheckpointError

Floats = NDArray[np.float32]
SHIPPED = Path(__file__).parent / "weights" / "model.safetensors"
"""The weights that come with the package."""

_FORMAT = "talipot-embedded-scorer-1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A residual convolution over three words, `dilation` apart.

    Attributes:
        kernel: float32[3 * width, width], the earlier word first.
        bias: float32[width].
        dilation: Distance of the words it sees.
    """

    kernel: Floats
    bias: Floats
    dilation: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """All that the network knows.

    Attributes:
        vocabulary: The words that have a vector of their own.
        words: int8[words, embedding].
        word_scales: float32[words]; a vector is its integers times its scale.
        pieces: int8[buckets, embedding]; the mean of a word's pieces is its vector otherwise.
        piece_scales: float32[buckets].
        projection: float32[embedding, width], applied to each word's vector.
        projection_bias: float32[width].
        blocks: The convolutions, in order.
        attention: float32[width], how much each word counts in the average.
        hidden: float32[2 * width, hidden], from maximum and average over the words.
        hidden_bias: float32[hidden].
        output: float32[hidden, labels].
        output_bias: float32[labels].
        calibration: float32[labels, 2]: slope and offset that make probabilities of the logits.
        version: Of the training that made them.
        digest: First 12 hex digits of the file's SHA-256.
    """

    vocabulary: dict[str, int]
    words: NDArray[np.int8]
    word_scales: Floats
    pieces: NDArray[np.int8]
    piece_scales: Floats
    projection: Floats
    projection_bias: Floats
    blocks: tuple[Block, ...]
    attention: Floats
    hidden: Floats
    hidden_bias: Floats
    output: Floats
    output_bias: Floats
    calibration: Floats
    version: str
    digest: str = ""


_ARRAYS = (
    "words",
    "word_scales",
    "pieces",
    "piece_scales",
    "projection",
    "projection_bias",
    "attention",
    "hidden",
    "hidden_bias",
    "output",
    "output_bias",
    "calibration",
)


def load_weights(path: Path = SHIPPED) -> Weights:
    """Read a file of `save_weights`.

    Raises:
        CheckpointError: It is missing, damaged, or not of this format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read the scorer's weights {path}: {error.strerror}"
        ) from error
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(
                    f"{path} has format {metadata.get('format')!r}; needed is {_FORMAT!r}"
                )
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _weights(arrays, metadata, hashlib.sha256(content).hexdigest()[:12])
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no sound file of scorer weights: {error}") from error


def _weights(arrays: dict[str, Any], metadata: dict[str, str], digest: str) -> Weights:
    labels = tuple(metadata["labels"].split(","))
    if labels != TOXICITY_LABELS:
        raise CheckpointError(f"weights with labels {labels}; needed are {TOXICITY_LABELS}")
    vocabulary = bytes(arrays["vocabulary"]).decode("utf-8").split("\n")
    dilations = [int(number) for number in metadata["dilations"].split(",")]
    return Weights(
        vocabulary={word: index for index, word in enumerate(vocabulary)},
        blocks=tuple(
            Block(
                kernel=arrays[f"blocks.{index}.kernel"],
                bias=arrays[f"blocks.{index}.bias"],
                dilation=dilation,
            )
            for index, dilation in enumerate(dilations)
        ),
        version=metadata["version"],
        digest=digest,
        **{name: arrays[name] for name in _ARRAYS},
    )


def save_weights(weights: Weights, path: Path) -> None:
    """Write them; the same weights give the same bytes."""
    arrays: dict[str, Any] = {name: getattr(weights, name) for name in _ARRAYS}
    words = sorted(weights.vocabulary, key=weights.vocabulary.__getitem__)
    arrays["vocabulary"] = np.frombuffer("\n".join(words).encode("utf-8"), np.uint8)
    for index, block in enumerate(weights.blocks):
        arrays[f"blocks.{index}.kernel"] = block.kernel
        arrays[f"blocks.{index}.bias"] = block.bias
    metadata = {
        "format": _FORMAT,
        "version": weights.version,
        "labels": ",".join(TOXICITY_LABELS),
        "dilations": ",".join(str(block.dilation) for block in weights.blocks),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, metadata)


def quantised(vectors: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Each row as int8 and its scale, float32[rows]."""
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-8).astype(np.float32) / np.float32(127)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales
