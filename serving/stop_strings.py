"""Stop strings in a stream of text: withhold what may become one, release what cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A stop string that was found; the text before it has been released."""

    stop: str


class StopMatcher:
    """Finds the stop string that is complete first; of two that end together, the longest.

    Every stop string is followed character by character (Knuth, Morris and Pratt 1977), so the
    result does not depend on how the text is cut into pieces, and each character costs constant
    time for each stop string. Text that may be the beginning of a stop string is withheld.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Look for `stops`, each at least one character."""
        self._patterns = [_Pattern(stop) for stop in sorted(set(stops), key=len, reverse=True)]
        self._withheld = ""

    def push(self, text: str) -> tuple[str, Match | None]:
        """Take the next text; returns what can be released and the match, if one is complete.

        After a match the matcher is spent.
        """
        if not self._patterns:
            return text, None
        text = self._withheld + text
        for index in range(len(self._withheld), len(text)):
            for pattern in self._patterns:
                if pattern.advance(text[index]):
                    return text[: index + 1 - len(pattern.stop)], Match(pattern.stop)
        keep = max(pattern.matched for pattern in self._patterns)
        self._withheld = text[len(text) - keep :]
        return text[: len(text) - keep], None

    def flush(self) -> str:
        """The withheld text: the stream has ended and it became no stop string."""
        text, self._withheld = self._withheld, ""
        return text


class _Pattern:
    """One stop string and how many of its first characters the text so far ends with."""

    __slots__ = ("_borders", "matched", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        # borders[n]: the longest proper prefix of stop[:n] that is also its suffix.
        self._borders = [0] * (len(stop) + 1)
        border = 0
        for index in range(1, len(stop)):
            while border and stop[index] != stop[border]:
                border = self._borders[border]
            border += stop[index] == stop[border]
            self._borders[index + 1] = border

    def advance(self, character: str) -> bool:
        """Take the next character; True if the stop string is complete."""
        while self.matched and character != self.stop[self.matched]:
            self.matched = self._borders[self.matched]
        self.matched += character == self.stop[self.matched]
        return self.matched == len(self.stop)
