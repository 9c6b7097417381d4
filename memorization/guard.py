"""Watches one text while it is generated: compares its tokens with the training data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from memorization.index import NearDuplicate, Span
from memorization.policy import MemorizationPolicy
from memorization.tracing import Tracer, UntracedError

MemorizationVerdict: TypeAlias = Literal["passed", "flagged", "blocked", "untraced"]
_MIN_STRIDE_TOKENS = 4
_MAX_SPANS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class GuardVerdict:
    """What `serving.guard.Verdict` asks for."""

    action: Literal["release", "redact", "block"]
    release_upto: int
    reasons: tuple[str, ...] = ()
    redactions: tuple[tuple[int, int], ...] = ()


class MemorizationGuard:
    """Watches one generation; implements `serving.guard.Guard`.

    Under annotate and avoid the whole text is looked up at its end. Under block the tokens are
    compared a stride (half of `min_tokens`) at a time, each time with as many before them as a run
    could have begun in, and leave when no run of `min_tokens` ends among them. So no such run ever
    leaves: where an index knows runs only roughly, the longest that they may be counts. Only
    generated tokens count, not those of the prompt.
    """

    name = "memorization"
    screens_prompt = False

    def __init__(self, policy: MemorizationPolicy, tracer: Tracer, *, offset: int = 0) -> None:
        """Watch one text; `offset` characters stand before it in what the client sees."""
        self._policy = policy
        self._tracer = tracer
        self._offset = offset
        self._stride = max(_MIN_STRIDE_TOKENS, policy.min_tokens // 2)
        self._tokens: list[int] = []
        self._ends: list[int] = []  # characters up to each token's end
        self._checked = 0  # tokens that may leave
        self._compared = 0  # tokens that the verdict is about
        self._spans: list[Span] = []
        self._near: list[NearDuplicate] | None = None
        self._verdict: MemorizationVerdict = "passed"
        self._reasons: list[str] = []

    @property
    def holds_back(self) -> bool:
        """Whether text waits until it is compared."""
        return self._policy.action == "block"

    async def screen(self, prompt: str, token_ends: Sequence[int]) -> GuardVerdict:
        """Let every prompt through: what people quote is theirs to quote."""
        return GuardVerdict("release", 0)

    def is_due(self, new_text: str, num_new_tokens: int) -> bool:
        """See `serving.guard.Guard`; only under block anything but the end decides."""
        if not self.holds_back:
            return False
        return len(self._tokens) + num_new_tokens >= self._checked + self._stride

    async def inspect(
        self,
        text_so_far: str,
        new_text: str,
        new_tokens: Sequence[tuple[int, int]],
        *,
        is_last: bool,
    ) -> GuardVerdict:
        """See `serving.guard.Guard`. But for block only the last verdict asks the index."""
        self._tokens += [token for token, _ in new_tokens]
        self._ends += [end for _, end in new_tokens]
        length = len(text_so_far) + len(new_text)
        try:
            if not self.holds_back:
                if is_last:
                    await self._annotate(text_so_far + new_text)
                return GuardVerdict("release", length)
            cut = await self._check(is_last=is_last)
        except UntracedError as error:
            return self._without_index(length, str(error))
        if cut is not None:
            self._verdict = "blocked"
            span = self._spans[0]
            place = f" of {span.occurrences[0].title!r}" if span.occurrences else ""
            self._reasons.append(
                f"up to {span.max_length} consecutive training tokens{place} reach "
                f"min_tokens={self._policy.min_tokens}"
            )
            return GuardVerdict("block", self._end(cut), tuple(self._reasons))
        return GuardVerdict("release", length if is_last else min(length, self._end(self._checked)))

    def abandon(self) -> None:
        """See `serving.guard.Guard`; nothing goes on between verdicts."""

    def report(self) -> dict[str, Any]:
        """See `serving.guard.Guard`."""
        spans = self._spans[:_MAX_SPANS]
        near = self._near
        return {
            "action": self._policy.action,
            "verdict": self._verdict,
            "min_tokens": self._policy.min_tokens,
            "tokens": self._compared,
            "recited_tokens": (
                None
                if self._verdict == "untraced" or not self._tracer.has_runs
                else recited_tokens(self._spans)
            ),
            "spans": [self._span(span) for span in spans],
            "near_duplicates": None if near is None else [near_dict(each) for each in near],
            "reasons": self._reasons,
        }

    def _without_index(self, length: int, reason: str) -> GuardVerdict:
        self._reasons.append(reason)
        if not self.holds_back:
            self._verdict = "untraced"
            return GuardVerdict("release", length)
        self._verdict = "blocked"
        return GuardVerdict("block", self._end(self._checked), (reason,))

    async def _annotate(self, text: str) -> None:
        self._compared = len(self._tokens)
        self._spans, self._near = await self._tracer.trace(
            self._tokens, self._policy.min_tokens, text
        )
        # Where an index tells near duplicates alone, they decide.
        if self._spans or (self._near and not self._tracer.has_runs):
            self._verdict = "flagged"

    async def _check(self, *, is_last: bool) -> int | None:
        """Compare whole strides, and at the end the rest; the token to end before, if any."""
        total = len(self._tokens)
        upto = total if is_last else total - total % self._stride
        if upto <= self._checked:
            return None
        if not await self._runs(self._checked, upto):
            self._checked = self._compared = upto
            return None
        # Stride by stride, so that the text ends at the same place however it arrived.
        while self._checked < upto:
            end = self._compared = min(upto, self._checked + self._stride)
            runs = await self._runs(self._checked, end)
            if runs:
                self._spans = runs
                first = min(run.end - run.max_length for run in runs)
                return max(self._checked, first)
            self._checked = end
        return None

    async def _runs(self, checked: int, upto: int) -> list[Span]:
        """Runs that may have `min_tokens` tokens and end in tokens `checked` to `upto`."""
        start = max(0, checked - self._policy.min_tokens + 1)
        found = await self._tracer.longest_matches(
            self._tokens[start:upto], self._policy.min_tokens
        )
        return [dataclasses.replace(span, start=span.start + start) for span in found]

    def _end(self, tokens: int) -> int:
        """Characters of the first so many tokens, whole characters only."""
        return self._ends[tokens - 1] if tokens else 0

    def _span(self, span: Span) -> dict[str, Any]:
        start = self._end(span.start)
        return {
            "start": start + self._offset,
            "end": self._end(span.end) + self._offset,
            **span_dict(span),
        }


def span_dict(span: Span) -> dict[str, Any]:
    """A run as JSON, without its place in the text."""
    return {
        "tokens": span.length,
        "max_tokens": span.max_length,
        "count": span.count,
        "documents": [dataclasses.asdict(place) for place in span.occurrences],
    }


def near_dict(near: NearDuplicate) -> dict[str, Any]:
    """A similar passage as JSON."""
    return {
        "document": near.document,
        "title": near.title,
        "source": near.source,
        "similarity": round(near.similarity, 4),
    }


def recited_tokens(spans: Sequence[Span]) -> int:
    """Tokens that are known to stand in some run, each counted once."""
    covered: set[int] = set()
    for span in spans:
        covered.update(range(span.start, span.end))
    return len(covered)
