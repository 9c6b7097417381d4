"""Canaries: made-up text that stands in training text as often as an experiment wants.

What a model recites of natural text depends on how often the text was seen and on how easy it is;
a canary's words are drawn independently, so that nothing but the repetitions differs (Carlini et
al. 2019, The Secret Sharer), and no text but itself has them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from memorization.corpus import Document
from memorization.errors import CorpusError
from memorization.studies.passages import Cut, Passage, StudyTokenizer, cut_passage

_WORD = re.compile(rb" [a-z]{3,}")
_FEWEST_WORDS = 256
_SPARE_WORDS = 2  # one before the passage, so that it begins between two words, and one behind it
_TRIES = 20


class VocabularyTokenizer(StudyTokenizer, Protocol):
    """A tokenizer whose tokens can be looked at one by one."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return a token's own bytes."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canary:
    """A made-up document, and how often it is to stand in the training text.

    Attributes:
        document: The whole text.
        passage: Its prompt and continuation.
        repetitions: 0 for a control that is never trained on.
    """

    document: Document
    passage: Passage
    repetitions: int


def draw_canaries(
    tokenizer: VocabularyTokenizer,
    cut: Cut,
    counts: Mapping[int, int],
    *,
    seed: int,
) -> list[Canary]:
    """Draw canaries.

    A canary is words of one token each, uniform over those of the vocabulary: of V words, every
    token carries log2(V) bits.

    Args:
        tokenizer: The models'.
        cut: How they are cut in prompt and continuation.
        counts: For each number of repetitions, how many canaries.
        seed: The same seed draws the same.

    Raises:
        CorpusError: The vocabulary has too few words of one token.
    """
    words = vocabulary_words(tokenizer)
    if len(words) < _FEWEST_WORDS:
        raise CorpusError(
            f"the tokenizer has {len(words)} words of one token, and canaries need at least "
            f"{_FEWEST_WORDS}"
        )
    rng = np.random.default_rng(seed)
    return [
        _draw(tokenizer, cut, words, f"canary-{times}-{number}", times, rng)
        for times, count in counts.items()
        for number in range(count)
    ]


def vocabulary_words(tokenizer: VocabularyTokenizer) -> list[str]:
    """Tokens that are a space and a word of at least three small letters, in order of their ids."""
    pieces = (tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size))
    words = [piece.decode() for piece in pieces if _WORD.fullmatch(piece)]
    return [word for word in words if len(tokenizer.encode(word)) == 1]


def _draw(
    tokenizer: VocabularyTokenizer,
    cut: Cut,
    words: Sequence[str],
    name: str,
    repetitions: int,
    rng: np.random.Generator,
) -> Canary:
    for _ in range(_TRIES):
        drawn = rng.integers(0, len(words), cut.total_tokens + _SPARE_WORDS)
        text = "".join(words[index] for index in drawn.tolist()).removeprefix(" ")
        document = Document(id=name, title="", source="canaries", text=text)
        passage = cut_passage(document, 0, tokenizer, cut)
        if passage is not None:
            return Canary(document=document, passage=passage, repetitions=repetitions)
    raise CorpusError(
        "the tokenizer splits words of one token otherwise where they stand together: it does not "
        "do for canaries"
    )
