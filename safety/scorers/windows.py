"""Long texts as overlapping windows: a text scores what its worst window scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CHARACTERS = 1500
"""Of a window for encoders of 512 tokens: English has more than three characters a token."""


def windows(texts: Sequence[str], size: int) -> tuple[list[str], NDArray[np.intp]]:
    """Cut texts at white space into windows of at most `size` characters, a quarter overlapping.

    What is not valid Unicode, as a lone surrogate, becomes a replacement character.

    Returns:
        The windows, at least one of each text, and the text that each is of: intp[windows].
    """
    pieces: list[str] = []
    owners: list[int] = []
    for owner, text in enumerate(texts):
        sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        start = 0
        while True:
            end = _end(sound, start, size)
            pieces.append(sound[start:end])
            owners.append(owner)
            if end >= len(sound):
                break
            start = max(start + size // 4, end - size // 4)
    return pieces, np.array(owners, np.intp)


def highest(
    scores: NDArray[np.float32], owners: NDArray[np.intp], num_texts: int
) -> NDArray[np.float32]:
    """Of each text and label the highest of its windows: float32[texts, labels]."""
    out = np.zeros((num_texts, scores.shape[1]), np.float32)
    np.maximum.at(out, owners, scores)
    return out


def _end(text: str, start: int, size: int) -> int:
    end = start + size
    if end >= len(text):
        return len(text)
    space = text.rfind(" ", start + size // 2, end)
    return space if space > 0 else end
