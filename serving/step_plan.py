"""What the scheduler decides for one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A request leaves the queue for `slot`; its first `cached_tokens` need not be computed."""

    request_id: str
    slot: int
    cached_tokens: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A request gives up its slot and pages.

    Either to go back to the queue, because pages ran out, or because all of its steps are planned:
    the device does them in order, so what it held can be used again at once.
    """

    request_id: str
    slot: int


@dataclasses.dataclass(frozen=True, slots=True)
class PagePlacement:
    """Entry `index` of `slot`'s page table becomes `page`."""

    slot: int
    index: int
    page: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PromptChunk:
    """Take tokens [start, start + length) of a request into its slot's pages."""

    request_id: str
    slot: int
    start: int
    length: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeToken:
    """Feed a request's newest token, which stands at `position`, and sample the next.

    `is_known` tells whether the host knows that token; else the step before samples it, and it is
    still on the device.

    Attributes:
        draft: Tokens guessed to come next, each fed at the position after; () of an unknown token.
    """

    request_id: str
    slot: int
    position: int
    is_known: bool
    draft: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step: slots change hands, then the chunks in order, then one decode step.

    A request whose prompt is completed by a chunk of this step is also in `decodes`.

    Attributes:
        departed: Requests that gave up their slots; carried out first.
        admitted: Requests that left it.
        placements: New entries of page tables.
        chunks: Prompt tokens to take in.
        decodes: Tokens to feed, in distinct slots.
    """

    departed: tuple[Departure, ...]
    admitted: tuple[Admission, ...]
    placements: tuple[PagePlacement, ...]
    chunks: tuple[PromptChunk, ...]
    decodes: tuple[DecodeToken, ...]

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens that each request gets."""
        tokens: dict[str, int] = {}
        for chunk in self.chunks:
            tokens[chunk.request_id] = tokens.get(chunk.request_id, 0) + chunk.length
        for decode in self.decodes:
            tokens[decode.request_id] = tokens.get(decode.request_id, 0) + 1
            tokens[decode.request_id] += len(decode.draft)
        return tokens
