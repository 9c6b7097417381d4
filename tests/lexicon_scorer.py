"""A scorer for tests: what it says of a text can be read off the text."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

LABELS = ("toxicity", "insult", "threat")


class LexiconScorer:
    """A text's score for a label is the highest of the words in it; `fail` and `hold` act up."""

    name = "lexicon"
    version = "1+test"
    labels = LABELS

    def __init__(self, words: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self.words = dict(words or {})
        self.batches: list[list[str]] = []
        self.fail_on: str | None = None
        self.may_go = threading.Event()
        self.may_go.set()

    def score(self, texts: Sequence[str]) -> np.ndarray:
        self.may_go.wait()
        self.batches.append(list(texts))
        if self.fail_on is not None and any(self.fail_on in text for text in texts):
            raise RuntimeError("told to fail")
        rows = [[self.of(text, label) for label in LABELS] for text in texts]
        return np.asarray(rows, np.float32).reshape(len(texts), len(LABELS))

    def of(self, text: str, label: str) -> float:
        """The score of one text for one label."""
        found = [scores.get(label, 0.01) for word, scores in self.words.items() if word in text]
        return max(found, default=0.01)
