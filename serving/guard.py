"""What watches a text while it is generated, seen from the outside.

One definition for every kind of guard. It is structural: the packages that implement guards need
not import this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

GuardAction: TypeAlias = Literal["release", "redact", "block"]
"""Let the text go; let it go with parts blacked out; end the generation."""


class Verdict(Protocol):
    """What a guard says of the text so far."""

    @property
    def action(self) -> GuardAction:
        """What is to be done."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, for people; empty where there is nothing to say."""

    @property
    def release_upto(self) -> int:
        """Characters of the text, from its start, that may leave; never fewer than before."""

    @property
    def redactions(self) -> tuple[tuple[int, int], ...]:
        """New spans (start, end) in characters below `release_upto` that leave blacked out."""


class Guard(Protocol):
    """Watches one generation; holds text back until it is decided."""

    @property
    def name(self) -> str:
        """What its report is called in a response: `safety`, `memorization`."""

    @property
    def holds_back(self) -> bool:
        """Whether text waits for its verdicts; if not, they change nothing."""

    @property
    def screens_prompt(self) -> bool:
        """Whether it wants to see the prompt first."""

    async def screen(self, prompt: str, token_ends: Sequence[int]) -> Verdict:
        """Look at the prompt before anything is generated; a block means that nothing is.

        `token_ends` has for each of its tokens the characters up to the token's end.
        """

    def is_due(self, new_text: str, num_new_tokens: int) -> bool:
        """Whether it could decide more than before, shown what came since it was last asked.

        Asked at each delta, so that `inspect` need not be. False where nothing would change.
        """

    async def inspect(
        self,
        text_so_far: str,
        new_text: str,
        new_tokens: Sequence[tuple[int, int]],
        *,
        is_last: bool,
    ) -> Verdict:
        """Take the next text, and say how far all of it may leave.

        Args:
            text_so_far: All generated text before, released or not.
            new_text: What came.
            new_tokens: Each new token's id, and the characters of the whole text up to its end.
                Text may lag behind tokens, never the other way round.
            is_last: Nothing comes after this; the verdict then decides all of the text.
        """

    def abandon(self) -> None:
        """Stop what is under way: the generation ended before its last verdict was asked for."""

    def report(self) -> dict[str, Any]:
        """What was found, as JSON values; complete after the last verdict."""
