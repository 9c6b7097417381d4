"""Undoes the tricks that hide a word from a scorer, and knows where each character came from.

Scorers read the normalised text; what is shown, redacted or blocked is always the original.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable
from typing import Final

# Soft hyphen, joiners, marks of direction, variation selectors, tags: nothing that is seen.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_COMBINING = re.compile("[\u0300-\u036f]+")
_REPEATED = re.compile(r"([^\W\d_])\1{2,}")
_SPELT_OUT = re.compile(r"(?<![^\W_])[^\W\d_]([ .\-_*/])(?:[^\W\d_]\1)+[^\W\d_](?![^\W_])")
# Digits and signs for letters, only where a letter must be meant: a number keeps its digits.
_LEET = re.compile(
    r"(?<=[a-z])[013457@](?=[a-z])|(?<=[a-z])\$\$|\$(?=[a-z])|(?<=[a-z][a-z])\$(?![\w$])"
)
_LEET_MARK = re.compile(r"(?<![a-z])[a-z]{1,3}!(?=[a-z]{1,3}(?![a-z]))")
_LEET_LETTERS: Final = str.maketrans("013457@$", "oieastas")
_MIXED_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[a-z]", re.IGNORECASE)
# A word spelt out across spaces has this in it.
_SPACED_OUT = re.compile(r" [^\W\d_] [^\W\d_](?![^\W_])")
# Letters that look like a Latin one, after Unicode's confusables: Cyrillic, Greek, phonetic.
_LOOKALIKES: Final = str.maketrans(
    "авекмнорстухіјѕԁԛԝһӏьαβεηικμνορτυχγωɑɡɩıɴʀʏɪ",
    "abekmhopctyxijsdqwhlbabeniкuvoptuxywagiinryi".replace("к", "k"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class NormalisedText:
    """A text as scorers read it.

    Attributes:
        text: Lower case, without what is invisible, look-alikes and tricks of spelling undone.
        starts: For each of its characters where it begins in the original.
        ends: For each of its characters where it ends in the original.
    """

    text: str
    starts: list[int]
    ends: list[int]

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """What the characters from `start` up to `end` were in the original.

        Raises:
            ValueError: The span is empty or outside the text.
        """
        if not 0 <= start < end <= len(self.text):
            raise ValueError(
                f"span {start}:{end} must hold characters within 0:{len(self.text)} of the text"
            )
        return self.starts[start], self.ends[end - 1]


def normalise(text: str) -> NormalisedText:
    """The text as scorers read it, with the way back; for the text alone see `normalised`."""
    buffer = _Buffer(text, list(range(len(text))), list(range(1, len(text) + 1)))
    _apply(buffer)
    assert buffer.starts is not None
    assert buffer.ends is not None
    return NormalisedText(buffer.text, buffer.starts, buffer.ends)


def normalised(text: str) -> str:
    """The same text as `normalise(text).text`, several times faster."""
    buffer = _Buffer(text, None, None)
    _apply(buffer)
    return buffer.text


def with_plain_characters(text: str) -> str:
    """The first half of `normalised`: lower case, no look-alikes, nothing invisible."""
    if text.isascii():
        return text.lower()
    buffer = _Buffer(text, None, None)
    _simplify(buffer)
    return buffer.text


def with_plain_spelling(text: str) -> str:
    """The second half, of what the first made: tricks of spelling undone."""
    buffer = _Buffer(text, None, None)
    _respell(buffer)
    return buffer.text


def is_spelt_word_by_word(text: str) -> bool:
    """Whether the second half does the same to a text as to each of its words alone."""
    return _SPACED_OUT.search(text) is None


class _Buffer:
    """A text under change, and for each character where it came from if anyone asks."""

    def __init__(self, text: str, starts: list[int] | None, ends: list[int] | None) -> None:
        self.text = text
        self.starts = starts
        self.ends = ends

    def substitute(self, pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str]) -> None:
        """Replace each match; a character of the replacement stands for the whole match, unless
        the two are of one length."""
        if self.starts is None or self.ends is None:
            self.text = pattern.sub(replace, self.text)
            return
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for match in pattern.finditer(self.text):
            begin, end = match.span()
            new = replace(match)
            pieces += (self.text[done:begin], new)
            starts += self.starts[done:begin]
            ends += self.ends[done:begin]
            if len(new) == end - begin:
                starts += self.starts[begin:end]
                ends += self.ends[begin:end]
            else:
                starts += [self.starts[begin]] * len(new)
                ends += [self.ends[end - 1]] * len(new)
            done = end
        if not done:
            return
        self.text = "".join([*pieces, self.text[done:]])
        self.starts = starts + self.starts[done:]
        self.ends = ends + self.ends[done:]


def _apply(buffer: _Buffer) -> None:
    _simplify(buffer)
    _respell(buffer)


def _simplify(buffer: _Buffer) -> None:
    if not buffer.text.isascii():
        buffer.substitute(_SURROGATE, lambda match: "\ufffd")
        buffer.substitute(_INVISIBLE, lambda match: "")
        buffer.substitute(_COMBINING, lambda match: "")
        buffer.substitute(_FOREIGN, lambda match: _plain(match[0]))
    if not buffer.text.isascii():
        buffer.substitute(_MIXED_WORD, _without_lookalikes)
    buffer.text = (
        "".join(map(_lower, buffer.text)) if not buffer.text.isascii() else buffer.text.lower()
    )


def _respell(buffer: _Buffer) -> None:
    buffer.substitute(_LEET, lambda match: match[0].translate(_LEET_LETTERS))
    buffer.substitute(_LEET_MARK, lambda match: match[0][:-1] + "i")
    buffer.substitute(_REPEATED, lambda match: match[1] * 2)
    buffer.substitute(_SPELT_OUT, lambda match: match[0].replace(match[1], ""))


@functools.lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """In Unicode's compatible form, and a Latin letter without what stands above or below it."""
    compatible = unicodedata.normalize("NFKC", character)
    parts = unicodedata.normalize("NFD", compatible)
    return _COMBINING.sub("", parts) if parts.isascii() or parts[:1].isascii() else compatible


def _without_lookalikes(match: re.Match[str]) -> str:
    word = match[0]
    # A word wholly in another alphabet is a word of that language.
    return word.lower().translate(_LOOKALIKES) if _LATIN.search(word) else word


def _lower(character: str) -> str:
    lowered = character.lower()
    return lowered if len(lowered) == 1 else character
