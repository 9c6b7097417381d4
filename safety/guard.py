"""Watches one text while it is generated: scores it window by window, and annotates, redacts or
blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from safety.policy import SafetyPolicy
from safety.scoring_thread import Answer, ScoringThread, UnscoredError
from safety.windows import Window, Windows

SafetyVerdict: TypeAlias = Literal["passed", "flagged", "redacted", "blocked", "unscored"]
Pending: TypeAlias = "tuple[Sequence[Window], asyncio.Future[list[Answer]]]"
"""Windows, and what is said of each when they are scored."""
_MAX_SPANS = 64
# Under annotate, where nothing waits: seldom enough that a look costs little, often enough that
# little is left to score when the last token has come.
_LOOK_EVERY_TOKENS = 64


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
        self._highest: list[float] = []  # of each label, over all that was scored
        self.failure: str | None = None
        """Why something has no score."""

    def submit(self, text: str, windows: Sequence[Window]) -> Pending:
        """Have windows scored, each in its sentence; costs the event loop no task."""
        texts = [text[window.context : window.end] for window in windows]
        return windows, self._thread.submit(texts)

    def time_limit(self) -> asyncio.Timeout:
        """For whoever waits for scores; say so to `give_up` when it has passed."""
        return asyncio.timeout(self._timeout_s)

    def give_up(self) -> str:
        """The time limit has passed: why something has no score."""
        self.failure = f"the scorer took longer than {self._timeout_s:g} s"
        return self.failure

    def judge(self, window: Window, answer: Answer) -> SafetySpan | None:
        """Take what is said of a window; the span if it reaches the threshold.

        Raises:
            UnscoredError: It has no scores.
        """
        if isinstance(answer, UnscoredError):
            self.failure = str(answer)
            raise answer
        values: list[float] = answer.tolist()
        self._highest = list(map(max, self._highest or values, values))
        if max(values) < self._policy.threshold:  # so nearly always
            return None
        best = max(self._counted, key=values.__getitem__)
        if values[best] < self._policy.threshold:
            return None
        return SafetySpan(window.start, window.end, self._labels[best], values[best])

    async def judge_all(self, pending: Sequence[Pending]) -> list[SafetySpan]:
        """Wait for all that have scores; the spans. `failure` says why if one has none."""
        spans = []
        try:
            async with self.time_limit():
                for windows, answers in pending:
                    for window, answer in zip(windows, await answers, strict=True):
                        with contextlib.suppress(UnscoredError):
                            spans.append(self.judge(window, answer))
        except TimeoutError:
            self.give_up()
        finally:
            _abandon(pending)
        return [span for span in spans if span is not None]

    def scores(self) -> dict[str, float] | None:
        """The highest of each label, none where there was no text; None if some has no score."""
        if self.failure is not None:
            return None
        return {
            label: round(value, 4)
            for label, value in zip(self._labels, self._highest, strict=False)
        }


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
        self._pending: list[Pending] = []
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
        spans = await judge.judge_all([judge.submit(prompt, windows)])
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
        ends = [end for _, end in new_tokens]
        windows = self._windows.push(text, ends, is_last=is_last)
        if windows:
            self._pending.append(self._judge.submit(text, windows))
        if self._policy.action == "annotate":
            if is_last:
                await self._annotate()
            return GuardVerdict("release", len(text))
        return await self._decide()

    def abandon(self) -> None:
        """Nobody wants the verdicts any more."""
        _abandon(self._pending)
        self._pending.clear()

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

    async def _annotate(self) -> None:
        pending, self._pending = self._pending, []
        self._spans = await self._judge.judge_all(pending)
        failure = self._judge.failure or (self._prompt_judge and self._prompt_judge.failure)
        if failure:
            self._verdict = "unscored"
            self._reasons.append(failure)
        elif self._spans or self._prompt_span:
            self._verdict = "flagged"

    async def _decide(self) -> GuardVerdict:
        """Wait for the windows; stop at the first that may not leave."""
        redactions: list[tuple[int, int]] = []
        for windows, scores in self._pending:
            try:
                async with self._judge.time_limit():
                    answers = await scores
            except TimeoutError:
                return self._block(windows[0], self._judge.give_up())
            for window, answer in zip(windows, answers, strict=True):
                try:
                    span = self._judge.judge(window, answer)
                except UnscoredError as error:
                    return self._block(window, str(error))
                if span is None:
                    continue
                self._spans.append(span)
                if self._policy.action == "block":
                    return self._block(window, self._reason(span))
                redactions.append((window.start, window.end))
        self._pending.clear()
        if not redactions:
            return GuardVerdict("release", self._windows.decided)
        self._verdict = "redacted"
        return GuardVerdict("redact", self._windows.decided, (), tuple(redactions))

    def _block(self, window: Window, reason: str) -> GuardVerdict:
        self.abandon()
        self._verdict = "blocked"
        self._reasons.append(reason)
        return GuardVerdict("block", window.start, tuple(self._reasons))

    def _reason(self, span: SafetySpan) -> str:
        return f"{span.label}={span.score:.3f} reaches threshold={self._policy.threshold:g}"


def _abandon(pending: Sequence[Pending]) -> None:
    """Nobody asks for these scores any more."""
    for _, answers in pending:
        answers.cancel()
