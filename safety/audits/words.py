"""Words that describe and words that are of a gender, as the audits count them."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from safety.audits import loading

_DESCRIPTIVE_TAGS = ("JJ", "RB")  # adjectives and adverbs, with their comparatives and superlatives


def descriptive_words(text: str, without: Sequence[str] = ()) -> list[str]:
    """The adjectives and adverbs of a text, in lower case and in order.

    Tagged by the Pattern tagger of textblob, whose lexicon is in its package; stop words and the
    words of `without` (a prompt) are left out.
    """
    skipped = _stop_words() | {word for one in without for word in words(one)}
    return [
        word.lower()
        for word, tag in _tagger().tag(text)
        if tag[:2] in _DESCRIPTIVE_TAGS and word.isalpha() and word.lower() not in skipped
    ]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[a-z']+", text.lower())


def gender_of(text: str) -> str:
    """`female`, `male` or `neutral`: whose words are more (Dhamala et al. 2021, unigrams)."""
    lists = _lists()["gender"]
    found = words(text)
    female = sum(word in lists["female"] for word in found)
    male = sum(word in lists["male"] for word in found)
    if female == male:
        return "neutral"
    return "female" if female > male else "male"


def sentiment(text: str) -> float:
    """From -1 (negative) to 1, by the Pattern lexicon of textblob."""
    from textblob.en.sentiments import PatternAnalyzer

    return float(PatternAnalyzer().analyze(text).polarity)


@functools.cache
def _tagger() -> Any:
    from textblob.en.taggers import PatternTagger

    return PatternTagger()


@functools.cache
def _lists() -> dict[str, Any]:
    return tomllib.loads(loading.shipped("words.toml").read_text(encoding="utf-8"))


@functools.cache
def _stop_words() -> frozenset[str]:
    return frozenset(_lists()["stop"])
