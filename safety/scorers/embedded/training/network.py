"""The embedded network in Flax, as it is trained; `forward.py` computes the same in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.embedded.weights import Block, Weights, quantised

DILATIONS = (1, 2, 4)
NUM_OUTPUTS = 2 * len(TOXICITY_LABELS)
"""The labels, then the teacher's opinion of each, which is learnt beside them and not shipped."""

_HIDDEN = 64


class Frozen(nnx.Variable[jax.Array]):
    """Not trained."""


class EmbeddedNetwork(nnx.Module):
    """Words to logits: word vectors, residual convolutions, maximum and attention, two layers."""

    def __init__(
        self,
        words: NDArray[np.float32],
        pieces: NDArray[np.float32],
        width: int,
        rngs: nnx.Rngs,
    ) -> None:
        """Start from word vectors float32[words, embedding] and float32[buckets, embedding]."""
        embedding = words.shape[1]
        self.words = nnx.Param(jnp.asarray(words))
        self.pieces = Frozen(jnp.asarray(pieces))
        self.projection = nnx.Linear(embedding, width, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(3 * width, width, rngs=rngs) for _ in DILATIONS])
        self.attention = nnx.Param(jnp.zeros(width, jnp.float32))
        self.hidden = nnx.Linear(2 * width, _HIDDEN, rngs=rngs)
        self.output = nnx.Linear(_HIDDEN, NUM_OUTPUTS, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, known: jax.Array, unknown: jax.Array, positions: jax.Array) -> jax.Array:
        """Score a batch.

        Args:
            known: int32[K], words of the batch that are read by their own vectors.
            unknown: int32[N, pieces], the others, as their pieces, filled up with -1.
            positions: int32[B, T], 0 for none, else 1 + row in `known`, then in `unknown`.

        Returns:
            float32[B, outputs], logits.
        """
        have = (unknown >= 0).astype(jnp.float32)[..., None]
        spelt = (self.pieces[...][jnp.maximum(unknown, 0)] * have).sum(1)
        spelt = spelt / jnp.maximum(have.sum(1), 1)
        vectors = jnp.concatenate([self.words[...][known], spelt])
        table = jax.nn.relu(self.projection(vectors))
        states = jnp.concatenate([jnp.zeros_like(table[:1]), table])[positions]
        mask = (positions > 0).astype(jnp.float32)[..., None]
        states = self.dropout(states)
        for dilation, block in zip(DILATIONS, self.blocks, strict=True):
            padded = jnp.pad(states, ((0, 0), (dilation, dilation), (0, 0)))
            length = states.shape[1]
            seen = jnp.concatenate(
                [padded[:, at : at + length] for at in (0, dilation, 2 * dilation)], axis=-1
            )
            states = states + mask * jax.nn.relu(block(seen))
        importance = jnp.exp(jnp.minimum(states @ self.attention[...], 30.0))[..., None] * mask
        average = (states * importance).sum(1) / importance.sum(1)
        pooled = jnp.concatenate([states.max(1), average], axis=-1)
        return self.output(self.dropout(jax.nn.relu(self.hidden(self.dropout(pooled)))))

    def weights(
        self,
        vocabulary: list[str],
        pieces: NDArray[np.float32],
        calibration: NDArray[np.float32],
        version: str,
    ) -> Weights:
        """As they are shipped: embeddings in int8, pieces fitted to the words' final vectors."""

        labels = len(TOXICITY_LABELS)

        def array(value: nnx.Variable[jax.Array] | None) -> NDArray[np.float32]:
            if value is None:
                raise TypeError("a layer without bias has no place in the shipped weights")
            return np.asarray(value[...], np.float32)

        words, word_scales = quantised(array(self.words))
        integers, piece_scales = quantised(pieces)
        return Weights(
            vocabulary={word: index for index, word in enumerate(vocabulary)},
            words=words,
            word_scales=word_scales,
            pieces=integers,
            piece_scales=piece_scales,
            projection=array(self.projection.kernel),
            projection_bias=array(self.projection.bias),
            blocks=tuple(
                Block(kernel=array(block.kernel), bias=array(block.bias), dilation=dilation)
                for dilation, block in zip(DILATIONS, self.blocks, strict=True)
            ),
            attention=array(self.attention),
            hidden=array(self.hidden.kernel),
            hidden_bias=array(self.hidden.bias),
            output=array(self.output.kernel)[:, :labels],
            output_bias=array(self.output.bias)[:labels],
            calibration=calibration,
            version=version,
        )
