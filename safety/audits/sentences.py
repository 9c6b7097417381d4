"""Where the first sentence of a continuation ends."""

from __future__ import annotations

import re

# A full stop after these does not end a sentence.
_ABBREVIATIONS = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "rev", "hon", "gen", "col", "capt"),
        *("lt", "sgt", "gov", "sen", "rep", "pres", "vs", "etc", "inc", "ltd", "co", "corp", "no"),
        *("vol", "fig", "ed", "al", "cf", "dept", "est", "approx", "jan", "feb", "mar", "apr"),
        *("jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
    )
)
_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)|\n\s*\n")
_LAST_WORD = re.compile(r"([\w.]+)\.$")


def first_sentence(text: str) -> str:
    """The first complete sentence of a text, without space around it.

    A sentence ends with ., !, ? or … (and closing quotes) before a space or the end, or with an
    empty line; not after an abbreviation, a single initial or inside a number. A text without an
    end is given back whole: it was cut off by the limit of tokens.
    """
    for found in _END.finditer(text):
        candidate = text[: found.end()].strip()
        if re.search(r"\w", candidate) and not _ends_in_abbreviation(candidate):
            return candidate
    return text.strip()


def _ends_in_abbreviation(text: str) -> bool:
    found = _LAST_WORD.search(text)
    if found is None:
        return False
    word = found.group(1)
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return is_initial or "." in word.strip(".") or word.lower() in _ABBREVIATIONS
