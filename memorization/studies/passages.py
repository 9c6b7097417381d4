"""Draws passages from a corpus: a prompt of so many tokens, and how the corpus goes on.

Places are uniform over the characters of all documents that are long enough, and move to the next
space between two words: there a tokenizer splits alone as it does within the document.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from memorization.corpus import Document, corpus_files, read_corpus
from memorization.errors import CorpusError

_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_CHARACTERS_PER_TOKEN = 16  # of the text that is tokenized; the average of any text is far below
_ROUNDS = 4  # of drawing: each reads the corpus once, and makes up for places that did not do
_SPARE = 32


class StudyTokenizer(Protocol):
    """Maps text to token ids and back."""

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of ``text``, without control tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
    """A passage of a document.

    Attributes:
        document: The document's id.
        title: Its title, empty if it has none.
        source: Name of the corpus file.
        offset: First character of the passage in the document's text.
        tokens: Its token ids: the longest prompt, then the continuation.
        prompts: The end of the longest prompt in each of the lengths asked for.
        continuation: How the document goes on after all of them.
    """

    document: str
    title: str
    source: str
    offset: int
    tokens: tuple[int, ...]
    prompts: tuple[str, ...]
    continuation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """How passages are cut.

    Attributes:
        prompt_tokens: Lengths of the prompts; all end where the continuation begins (Carlini et
            al. 2022), so that only what the model is told differs.
        continuation_tokens: Length of what follows.
    """

    prompt_tokens: tuple[int, ...] = (50,)
    continuation_tokens: int = 50

    def __post_init__(self) -> None:
        """Check every field; ValueError names field, value and limit."""
        if not self.prompt_tokens or min(self.prompt_tokens) < 1:
            raise ValueError(f"prompt_tokens={self.prompt_tokens} must be some numbers from 1")
        if len(set(self.prompt_tokens)) < len(self.prompt_tokens):
            raise ValueError(f"prompt_tokens={self.prompt_tokens} must not repeat a length")
        if self.continuation_tokens < 1:
            raise ValueError(f"continuation_tokens={self.continuation_tokens} must be at least 1")

    @property
    def total_tokens(self) -> int:
        """Tokens of a passage."""
        return max(self.prompt_tokens) + self.continuation_tokens


def draw_passages(
    corpus: Sequence[Path], tokenizer: StudyTokenizer, cut: Cut, *, count: int, seed: int
) -> list[Passage]:
    """Draw ``count`` passages; see `draw_some_passages`.

    Raises:
        CorpusError: The corpus cannot be read, or holds fewer passages.
    """
    found = draw_some_passages(corpus, tokenizer, cut, count=count, seed=seed)
    if len(found) < count:
        names = ", ".join(path.name for path in corpus)
        raise CorpusError(
            f"{names}: only {len(found)} of {count} passages of {cut.total_tokens} tokens were "
            "found: ask for fewer or shorter ones"
        )
    return found


def draw_some_passages(
    corpus: Sequence[Path], tokenizer: StudyTokenizer, cut: Cut, *, count: int, seed: int
) -> list[Passage]:
    """Draw passages that begin at different places; they may overlap.

    A prompt that the tokenizer would not split again as it was split in the passage is passed
    over: the model must be given the very tokens of the corpus.

    Returns:
        ``count`` passages, or as many as a few readings of the corpus found.

    Raises:
        CorpusError: The corpus cannot be read.
    """
    files = corpus_files(corpus)
    rooms = [max(0, len(one.text) - cut.total_tokens) for one in read_corpus(files)]
    ends = np.cumsum(np.asarray(rooms, np.int64))
    found: dict[tuple[int, int], Passage] = {}
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        missing = count - len(found)
        if not missing or not ends.size or not ends[-1]:
            break
        draws = rng.integers(0, ends[-1], 2 * missing + _SPARE)
        owners = np.searchsorted(ends, draws, side="right")
        places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for order, (owner, draw) in enumerate(zip(owners.tolist(), draws.tolist(), strict=True)):
            places[owner].append((order, draw - int(ends[owner]) + rooms[owner]))
        drawn: dict[int, tuple[tuple[int, int], Passage]] = {}
        for number, document in enumerate(read_corpus(files)):
            for order, offset in places.get(number, ()):
                passage = cut_passage(document, offset, tokenizer, cut)
                if passage is not None:
                    drawn[order] = ((number, passage.offset), passage)
        for order in sorted(drawn):
            if len(found) < count:
                found.setdefault(*drawn[order])
    return list(found.values())


def cut_passage(
    document: Document, offset: int, tokenizer: StudyTokenizer, cut: Cut
) -> Passage | None:
    """The passage at the next space from ``offset`` on; None if there is none to use."""
    place = _BETWEEN_WORDS.search(document.text, offset)
    if place is None:
        return None
    start = place.start()
    total = cut.total_tokens
    text = document.text[start : start + _CHARACTERS_PER_TOKEN * total]
    tokens = tokenizer.encode(text)
    if len(tokens) <= total:  # the last of them may be split otherwise where the text goes on
        return None
    tokens = tokens[:total]
    longest = total - cut.continuation_tokens
    before, whole = tokenizer.decode(tokens[:longest]), tokenizer.decode(tokens)
    if not text.startswith(whole) or not whole.startswith(before):
        return None
    prompts = []
    for length in cut.prompt_tokens:
        ids = tokens[longest - length : longest]
        prompt = tokenizer.decode(ids)
        if list(tokenizer.encode(prompt)) != list(ids):
            return None
        prompts.append(prompt)
    return Passage(
        document=document.id,
        title=document.title,
        source=document.source,
        offset=start,
        tokens=tuple(tokens),
        prompts=tuple(prompts),
        continuation=whole[len(before) :],
    )
