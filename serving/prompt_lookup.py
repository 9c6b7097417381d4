"""Guessing a request's next tokens from what it said before: n-gram or prompt lookup.

Text that repeats itself or its prompt is predicted by its own earlier copy, at the price of a
dictionary access (Saxena 2023, "Prompt Lookup Decoding"; Leviathan et al. 2023, arXiv 2211.17192,
for drafts in general). A lookup also knows how good its guesses are: every new token is compared
with the one that would have been proposed, whether or not anything was drafted, so that finding
out where speculation pays costs no device time.
"""

from __future__ import annotations

from collections.abc import Sequence

# An n-gram this long is looked for first, then each shorter one. Single tokens predict little.
_LONGEST, _SHORTEST = 3, 2
# Weight of the newest guess in a lookup's running acceptance.
_NEWEST_WEIGHT = 1 / 8


class PromptLookup:
    """A request's tokens, where each n-gram of them stood last, and how well that predicts.

    A guess that held is followed on: the source stays the same until a token differs.

    Attributes:
        acceptance: Running share of guesses that held, 0 to 1; it is not moved by tokens for which
            there was no guess.
    """

    __slots__ = ("_next", "_places", "_tokens", "acceptance")

    def __init__(self, tokens: Sequence[int], acceptance: float) -> None:
        """Index a prompt; `acceptance` is what is expected before anything is seen."""
        self.acceptance = acceptance
        self._tokens: list[int] = []
        # N-gram to where its latest follower stands.
        self._places: dict[tuple[int, ...], int] = {}
        self._next: int | None = None
        for token in tokens:
            self._append(token)
        self._next = self._find()

    @property
    def has_guess(self) -> bool:
        """Whether the text ends as an earlier part of it does."""
        return self._next is not None

    def push(self, token: int) -> bool | None:
        """Take the next token; whether the guess at it held, None if there was none."""
        guess = self._next
        if guess is None:
            self._append(token)
            self._next = self._find()
            return None
        held = self._tokens[guess] == token
        self.acceptance += _NEWEST_WEIGHT * (held - self.acceptance)
        self._append(token)
        self._next = guess + 1 if held else self._find()
        return held

    def skip(self, tokens: Sequence[int]) -> None:
        """Take tokens without looking: they are no source of guesses but by being followed on."""
        self._tokens.extend(tokens)
        self._next = None

    def draft(self, count: int) -> tuple[int, ...]:
        """The next `count` tokens, if the text goes on as its source does; () without one.

        A source that reaches the end of the text goes on with the draft itself: a loop.
        """
        if self._next is None:
            return ()
        source = self._tokens[self._next : self._next + count]
        return tuple(source[index % len(source)] for index in range(count))

    def _append(self, token: int) -> None:
        # What ended just before this token is found from now on, but not by itself.
        tokens = self._tokens
        if len(tokens) >= _LONGEST:
            self._places[tokens[-3], tokens[-2], tokens[-1]] = len(tokens)
        if len(tokens) >= _SHORTEST:
            self._places[tokens[-2], tokens[-1]] = len(tokens)
        tokens.append(token)

    def _find(self) -> int | None:
        tokens = self._tokens
        for length in range(_LONGEST, _SHORTEST - 1, -1):
            place = self._places.get(tuple(tokens[-length:])) if len(tokens) >= length else None
            if place is not None:
                return place
        return None
