"""A teacher for labels that our sets lack: tox-block 0.1.2 (MIT), a BiLSTM of Jigsaw comments.

Its package needs TensorFlow 2.2; its network is small enough to be computed here. The tokenizer is
a pickle, of which only plain data is read, and the weights are an HDF5 file, so that reading the
package needs h5py; the training itself reads the safetensors made of it.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

_MAX_WORDS = 20_000
_LENGTH = 100
_FILTERED = re.compile(r"""[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n]""")
_TRAINED = "tox_block/trained_models"


class _PlainData(pickle.Unpickler):
    """Reads containers and numbers; any other class becomes an empty shell without behaviour."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("collections", "OrderedDict"), ("collections", "defaultdict")}:
            return getattr(importlib.import_module(module), name)
        if (module, name) == ("builtins", "int"):
            return int
        return type(name, (), {})


def convert(package: Path, target: Path) -> None:
    """Make safetensors of an unpacked wheel of tox-block 0.1.2."""
    with (package / _TRAINED / "encoder_0.1.2.pkl").open("rb") as file:
        index: dict[str, int] = _PlainData(file).load().tokenizer.word_index
    words = {word: number for word, number in index.items() if number < _MAX_WORDS}
    h5py = importlib.import_module("h5py")
    with h5py.File(package / _TRAINED / "lstm_model_0.1.2.h5") as file:
        layers = file["model_weights"]
        arrays = {
            name: np.array(layers[path], np.float32)
            for name, path in {
                "embedding": "embedding/embedding/embeddings:0",
                "dense": "dense/dense/kernel:0",
                "dense_bias": "dense/dense/bias:0",
                "output": "dense_1/dense_1/kernel:0",
                "output_bias": "dense_1/dense_1/bias:0",
                **{
                    f"{direction}_{part}": f"bidirectional/bidirectional/{direction}_lstm/{part}:0"
                    for direction in ("forward", "backward")
                    for part in ("kernel", "recurrent_kernel", "bias")
                },
            }.items()
        }
    save_file(arrays, target, {"words": json.dumps(words)})


class Teacher:
    """Soft labels, one for each of Detoxify's six."""

    def __init__(self, path: Path) -> None:
        """Load what `convert` wrote."""
        with safe_open(path, framework="numpy") as file:
            self._words: dict[str, int] = json.loads(file.metadata()["words"])
            self._weights = {name: jnp.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118

    def words(self) -> list[str]:
        """The words it knows, most frequent first."""
        return sorted(self._words, key=self._words.__getitem__)

    def vectors(self, words: Sequence[str]) -> NDArray[np.float32]:
        """float32[words, 50]: its own vectors of words, zeros of those that it does not know."""
        # Number 0 is padding, whose vector says nothing of a word.
        table = np.asarray(self._weights["embedding"]).copy()
        table[0] = 0
        return table[[self._words.get(word, 0) for word in words]]

    def label(self, texts: Sequence[str], batch: int = 1024) -> NDArray[np.float32]:
        """float32[texts, 6]: probabilities, in the order of `TOXICITY_LABELS`."""
        rows = np.zeros((len(texts) + -len(texts) % batch, _LENGTH), np.int32)
        for row, text in zip(rows, texts, strict=False):
            cleaned = _FILTERED.sub(" ", text.lower()).split(" ")
            known = [self._words[word] for word in cleaned if word in self._words][-_LENGTH:]
            if known:
                row[-len(known) :] = known
        parts = [
            np.asarray(_forward(self._weights, rows[at : at + batch]))
            for at in range(0, len(rows), batch)
        ]
        return np.concatenate(parts)[: len(texts)]


@jax.jit
def _forward(weights: dict[str, jax.Array], rows: jax.Array) -> jax.Array:
    """float32[B, 6] of int32[B, T]."""
    states = weights["embedding"][rows].swapaxes(0, 1)
    both = jnp.concatenate(
        [_lstm(weights, "forward", states), _lstm(weights, "backward", states[::-1])[::-1]], axis=-1
    )
    hidden = jax.nn.relu(both.max(axis=0) @ weights["dense"] + weights["dense_bias"])
    return jax.nn.sigmoid(hidden @ weights["output"] + weights["output_bias"])


def _lstm(weights: dict[str, jax.Array], direction: str, inputs: jax.Array) -> jax.Array:
    """Keras 2.2's LSTM, whose gates are hard sigmoids: float32[T, B, 50]."""
    kernel, recurrent, bias = (
        weights[f"{direction}_{part}"] for part in ("kernel", "recurrent_kernel", "bias")
    )

    def gate(values: jax.Array) -> jax.Array:
        return jnp.clip(0.2 * values + 0.5, 0, 1)

    def step(
        carry: tuple[jax.Array, jax.Array], value: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        output, cell = carry
        i, f, c, o = jnp.split(value @ kernel + output @ recurrent + bias, 4, axis=-1)
        cell = gate(f) * cell + gate(i) * jnp.tanh(c)
        output = gate(o) * jnp.tanh(cell)
        return (output, cell), output

    zeros = jnp.zeros((inputs.shape[1], recurrent.shape[0]), jnp.float32)
    return jax.lax.scan(step, (zeros, zeros), inputs)[1]


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
