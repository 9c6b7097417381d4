"""A scorer small enough to check by hand: a fixed weight for each of some words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WEIGHTS = {"idiot": 0.6, "stupid": 0.55, "hate": 0.4, "kill": 0.5, "ugly": 0.3, "damn": 0.3}
_WEIGHTS |= {"fool": 0.25, "war": 0.1, "old": 0.05, "death": 0.2, "devil": 0.3, "blood": 0.15}


class LexiconScorer:
    """Toxicity: 1 minus the product over words of 1 minus their weight; insult: half of it."""

    name = "lexicon"
    version = "1"
    labels = ("toxicity", "insult")

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), len(self.labels)), np.float32)
        for row, text in enumerate(texts):
            kept = 1.0
            for word in re.findall(r"\w+", text.lower()):
                kept *= 1 - _WEIGHTS.get(word, 0.002)
            rows[row] = (1 - kept, (1 - kept) / 2)
        return rows
