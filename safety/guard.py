"""Watches one text while it is generated: scores it window by window, and annotates, redacts or
blocks.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from safety.policy import SafetyPolicy
from safety.scoring_thread import Scores, ScoringThread, UnscoredError
from safety.windows import Window, Windows

SafetyVerdict: TypeAlias = Literal["passed", "flagged", "redacted", "blocked", "unscored"]
_MAX_SPANS = 64
_LOOK_EVERY_TOKENS = 64  # under annotate, where nothing waits


@dataclasses.dataclass(frozen=True, slots=True)
class GuardVerdict:
    """What `serving.guard.Verdict` asks for."""

    action: Literal["release", "redact", "block"]
    release_upto: int
    reasons: tuple[str, ...] = ()
    redactions: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class SafetySpan:
    """A piece of text that reached the threshold, in characters, and by which label most."""

    start: int
    end: int
    label: str
    score: float

    def to_dict(self, offset: int) -> dict[str, Any]:
        """As JSON, in characters of the text that the client sees."""
        return {
            "start": self.start + offset,
            "end": self.end + offset,
            "label": self.label,
            "score": round(self.score, 4),
        }


class Judge:
    """Scores texts against one policy and keeps the highest scores."""

    def __init__(self, policy: SafetyPolicy, thread: ScoringThread, timeout_s: float) -> None:
        """A score that takes longer than `timeout_s` counts as none."""
        scorer = thread.load()
        self._policy = policy
        self._thread = thread
        self._timeout_s = timeout_s
        self._labels = scorer.labels
        self._counted = tuple(
            index
            for index, label in enumerate(scorer.labels)
            if policy.labels is None or label in policy.labels
        )
        self.highest: dict[str, float] = {}
        """Of each label, over all that was scored."""
        self.failure: str | None = None
        """Why something has no score."""

    async def judge(self, text: str, window: Window) -> SafetySpan | None:
        """Score a window in its sentence; the span if it reaches the threshold.

        Raises:
            UnscoredError: It has no score.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                scores = await self._thread.submit(text[window.context : window.end])
        except TimeoutError:
            self.failure = f"the scorer took longer than {self._timeout_s:g} s"
            raise UnscoredError(self.failure) from None
        except UnscoredError as error:
            self.failure = str(error)
            raise
        return self._take(scores, window)

    def _take(self, scores: Scores, window: Window) -> SafetySpan | None:
        values = scores.tolist()
        for label, value in zip(self._labels, values, strict=True):
            self.highest[label] = max(value, self.highest.get(label, 0.0))
        best = max(self._counted, key=values.__getitem__)
        if values[best] < self._policy.threshold:
            return None
        return SafetySpan(window.start, window.end, self._labels[best], values[best])

    def scores(self) -> dict[str, float] | None:
        """The highest of each label; None where nothing was scored, or something was not."""
        if self.failure is not None:
            return None
        return {label: round(value, 4) for label, value in self.highest.items()}


class SafetyGuard:
    """Watches one generation; implements `serving.guard.Guard`."""

    name = "safety"

    def __init__(
        self,
        policy: SafetyPolicy,
        thread: ScoringThread,
        *,
        timeout_s: float,
        offset: int = 0,
    ) -> None:
        """Watch one text; `offset` characters stand before it in what the client sees.

        The scorer must be loaded, and know the policy's labels.
        """
        self._policy = policy
        self._thread = thread
        self._timeout_s = timeout_s
        self._offset = offset
        self._judge = Judge(policy, thread, timeout_s)
        self._windows = Windows(policy.window_tokens)
        self._pending: list[asyncio.Task[SafetySpan | None]] = []
        self._spans: list[SafetySpan] = []
        self._prompt_judge: Judge | None = None
        self._prompt_span: SafetySpan | None = None
        self._verdict: SafetyVerdict = "passed"
        self._reasons: list[str] = []

    @property
    def holds_back(self) -> bool:
        """Whether text waits for its score."""
        return self._policy.action != "annotate"

    @property
    def screens_prompt(self) -> bool:
        """Whether the policy has prompts scored."""
        return self._policy.prompt

    async def screen(self, prompt: str, token_ends: Sequence[int]) -> GuardVerdict:
        """See `serving.guard.Guard`."""
        judge = self._prompt_judge = Judge(self._policy, self._thread, self._timeout_s)
        windows = Windows(self._policy.window_tokens).push(prompt, token_ends, is_last=True)
        found = await asyncio.gather(
            *(judge.judge(prompt, window) for window in windows), return_exceptions=True
        )
        spans = [span for span in found if isinstance(span, SafetySpan)]
        _raise_unexpected(found)
        self._prompt_span = max(spans, key=lambda span: span.score, default=None)
        if self._policy.action == "annotate" or not (spans or judge.failure):
            return GuardVerdict("release", 0)
        self._verdict = "blocked"
        self._reasons.append(
            f"prompt: {self._reason(self._prompt_span) if self._prompt_span else judge.failure}"
        )
        return GuardVerdict("block", 0, tuple(self._reasons))

    def is_due(self, new_text: str, num_new_tokens: int) -> bool:
        """See `serving.guard.Guard`."""
        if self._policy.action == "annotate":
            return num_new_tokens >= _LOOK_EVERY_TOKENS
        return self._windows.is_due(new_text, num_new_tokens)

    async def inspect(
        self,
        text_so_far: str,
        new_text: str,
        new_tokens: Sequence[tuple[int, int]],
        *,
        is_last: bool,
    ) -> GuardVerdict:
        """See `serving.guard.Guard`. Under annotate nothing is held back, and only the last
        verdict waits for scores.
        """
        text = text_so_far + new_text
        windows = self._windows.push(text, (end for _, end in new_tokens), is_last=is_last)
        self._pending += [self._start(text, window) for window in windows]
        if self._policy.action == "annotate":
            if is_last:
                await self._annotate()
            return GuardVerdict("release", len(text))
        return await self._decide(windows)

    def abandon(self) -> None:
        """Nobody wants the verdicts any more."""
        for task in self._pending:
            task.cancel()

    def report(self) -> dict[str, Any]:
        """See `serving.guard.Guard`; `scores` are the highest of any window."""
        scorer = self._thread.load()
        prompt = None
        if self._prompt_judge is not None:
            span = self._prompt_span
            prompt = {
                "flagged": span is not None,
                "label": None if span is None else span.label,
                "scores": self._prompt_judge.scores(),
            }
        return {
            "action": self._policy.action,
            "verdict": self._verdict,
            "scores": self._judge.scores(),
            "threshold": self._policy.threshold,
            "spans": [span.to_dict(self._offset) for span in self._spans[:_MAX_SPANS]],
            "reasons": self._reasons,
            "prompt": prompt,
            "scorer": {"name": scorer.name, "version": scorer.version},
        }

    def _start(self, text: str, window: Window) -> asyncio.Task[SafetySpan | None]:
        task = asyncio.create_task(self._judge.judge(text, window))
        # Behind a block nobody asks for it, and that is no fault.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _annotate(self) -> None:
        found = await asyncio.gather(*self._pending, return_exceptions=True)
        _raise_unexpected(found)
        self._pending.clear()
        self._spans = [span for span in found if isinstance(span, SafetySpan)]
        failure = self._judge.failure or (self._prompt_judge and self._prompt_judge.failure)
        if failure:
            self._verdict = "unscored"
            self._reasons.append(failure)
        elif self._spans or self._prompt_span:
            self._verdict = "flagged"

    async def _decide(self, windows: Sequence[Window]) -> GuardVerdict:
        """Wait for the windows in order; stop at the first that may not leave."""
        redactions = []
        for window in windows:
            try:
                span = await self._pending.pop(0)
            except UnscoredError as error:
                return self._block(window, str(error))
            if span is None:
                continue
            self._spans.append(span)
            if self._policy.action == "block":
                return self._block(window, self._reason(span))
            self._verdict = "redacted"
            redactions.append((window.start, window.end))
        action: Literal["redact", "release"] = "redact" if redactions else "release"
        return GuardVerdict(action, self._windows.decided, (), tuple(redactions))

    def _block(self, window: Window, reason: str) -> GuardVerdict:
        self.abandon()
        self._verdict = "blocked"
        self._reasons.append(reason)
        return GuardVerdict("block", window.start, tuple(self._reasons))

    def _reason(self, span: SafetySpan) -> str:
        return f"{span.label}={span.score:.3f} reaches threshold={self._policy.threshold:g}"


def _raise_unexpected(found: Sequence[object]) -> None:
    """A text without a score is an answer; any other exception is a fault."""
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, UnscoredError):
            raise each
