"""Made-up prose: enough different words for windows to be told apart, and the same every time."""

from __future__ import annotations

import random

_SYLLABLES = [consonant + vowel for consonant in "bdklmrst" for vowel in "aeiou"]


def prose(words: int, seed: int) -> str:
    """So many words in sentences."""
    rng = random.Random(seed)
    out = []
    for number in range(words):
        word = "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4)))
        out.append(word.capitalize() if number % 9 == 0 else word)
        if number % 9 == 8:
            out[-1] += ".\n" if number % 27 == 26 else "."
    return " ".join(out)


def edited(text: str, share: float, seed: int) -> str:
    """The text with a share of its words replaced, each on its own."""
    rng = random.Random(seed)
    return " ".join(
        "".join(rng.choices(_SYLLABLES, k=5)) if rng.random() < share else word
        for word in text.split(" ")
    )


def corpus(documents: int, words: int = 200, seed: int = 0) -> list[dict[str, object]]:
    """Records of a corpus file."""
    return [
        {"id": f"d{n}", "title": f"Title {n}", "text": prose(words, seed * 10_000 + n)}
        for n in range(documents)
    ]
