"""Cuts runs of tokens out of a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memorization.errors import TrainingIndexError
from memorization.tokenizer import IndexTokenizer


def character_spans(
    text: str, tokens: Sequence[int], spans: Sequence[tuple[int, int]], tokenizer: IndexTokenizer
) -> list[tuple[int, int]]:
    """Where runs of tokens lie in a text, in characters.

    A run that begins or ends inside a character leaves that character out.

    Args:
        text: What was tokenized.
        tokens: Its ids.
        spans: First token of each run, and one past its last.
        tokenizer: Whose ids they are.

    Raises:
        TrainingIndexError: The tokens do not spell the text.
    """
    pieces = [tokenizer.token_bytes(token) for token in tokens]
    data = b"".join(pieces)
    if data != text.encode():
        raise TrainingIndexError(
            "the tokenizer's tokens do not spell the text that they stand for: repeated passages "
            "can only be cut with a tokenizer that keeps every character"
        )
    offsets = np.cumsum([0, *map(len, pieces)])
    # The character that each byte begins; a byte inside a character belongs to the next one.
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    at = np.append(np.cumsum(begins) - begins, len(text))
    inside = np.append(~begins, False)
    found = []
    for start, end in spans:
        first, last = int(offsets[start]), int(offsets[end])
        # `at` of an inner byte is the character behind; one that is cut at its end stays.
        begin, stop = int(at[first]), int(at[last]) - bool(inside[last])
        found.append((begin, max(begin, stop)))
    return found


def without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text without some of its parts, which are ascending and do not overlap."""
    kept, begin = [], 0
    for start, end in spans:
        kept.append(text[begin:start])
        begin = max(begin, end)
    kept.append(text[begin:])
    return "".join(kept)
