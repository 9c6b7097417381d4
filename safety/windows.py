"""Where a text is cut for scoring while it is still being written.

A window ends with its sentence, or after so many tokens, whichever comes first. Where windows end
depends on the text and its tokens alone, never on the pieces in which they arrive, so a text is
scored alike whether it is streamed or not.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

# A terminator counts once white space follows it; those of Chinese and Japanese need none. A blank
# line ends a heading or verse that has no terminator. All begin with one set of characters, so that
# `re` skips the others quickly.
_SENTENCE_END = re.compile(
    r"""[.!?\u2026\u3002\uff01\uff1f\n](?:"""
    r"""(?<=[.!?\u2026])[.!?\u2026]*["'\u201d\u2019)\]]*(?=\s)"""
    r"""|(?<=[\u3002\uff01\uff1f])|(?<=\n)[^\S\n]*\n)"""
)
# What may turn out to end a sentence when the next character is known.
_OPEN_END = re.compile(
    r"""[.!?\u2026\n](?:(?<!\n)["'\u201d\u2019)\]]*|(?<=\n)[^\S\n]*)\Z""",
)
_MAX_CONTEXT_CHARACTERS = 600


class Window(NamedTuple):
    """A piece of text to decide about, in characters of the whole text.

    Attributes:
        context: Where the text to score begins: the window's sentence, the part before it too.
        start: Where the window begins.
        end: Where it ends.
    """

    context: int
    start: int
    end: int


class Windows:
    """Cuts one text."""

    def __init__(self, max_tokens: int) -> None:
        """No window has more than `max_tokens` tokens."""
        self._max_tokens = max_tokens
        self._token_ends: list[int] = []  # of tokens that end behind `_start`
        self._start = 0  # of the open window
        self._sentence = 0  # start of the sentence that the open window is in, or before
        self._is_open = False  # the text that was seen may end a sentence

    @property
    def decided(self) -> int:
        """Characters in closed windows; the rest is still to be cut."""
        return self._start

    def is_due(self, new_text: str, num_new_tokens: int) -> bool:
        """Whether a window may close with what came since the last `push`."""
        return (
            self._is_open
            or len(self._token_ends) + num_new_tokens >= self._max_tokens
            or _SENTENCE_END.search(new_text) is not None
        )

    def push(self, text: str, token_ends: Sequence[int], *, is_last: bool) -> list[Window]:
        """The windows that are closed by now.

        Args:
            text: The whole text so far.
            token_ends: For each new token the characters up to its end, ascending.
            is_last: Close the last window too, wherever it ends.
        """
        self._token_ends += token_ends[bisect_right(token_ends, self._start) :]
        windows: list[Window] = []
        while (end := self._next_end(text)) is not None:
            windows.append(self._close(text, end))
        if is_last and self._start < len(text):
            windows.append(self._close(text, len(text)))
        self._is_open = _OPEN_END.search(text, self._start) is not None
        return windows

    def _next_end(self, text: str) -> int | None:
        """Where the open window ends, if that is known."""
        limit = None
        if len(self._token_ends) >= self._max_tokens:
            limit = self._token_ends[self._max_tokens - 1]
        match = _SENTENCE_END.search(text, self._start)
        if match is not None and (limit is None or match.end() <= limit):
            return match.end()
        return limit if limit is not None and limit <= len(text) else None

    def _close(self, text: str, end: int) -> Window:
        start = self._start
        for match in _SENTENCE_END.finditer(text, self._sentence, min(len(text), start + 1)):
            if match.end() <= start:
                self._sentence = match.end()
        self._start = end
        del self._token_ends[: bisect_right(self._token_ends, end)]
        return Window(max(self._sentence, start - _MAX_CONTEXT_CHARACTERS), start, end)
