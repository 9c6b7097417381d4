"""The requests that an engine has, and those of them whose time has come without a step."""

from __future__ import annotations

import heapq
import time
from collections import deque

from serving.errors import RequestError
from serving.output import FinishReason
from serving.sequence import DEADLINE, Emitted, Sequence


class RequestsInProgress:
    """Requests by id, from their arrival to their end. The owner holds a lock; `abort` needs none.

    Attributes:
        prompt_tokens_total: Prompt tokens of all that ever arrived.
        finished_total: Those that ended, however they did.
        aborted_total: Those that ended by abort or deadline.
    """

    def __init__(self) -> None:
        """None yet."""
        self.prompt_tokens_total = self.finished_total = self.aborted_total = 0
        self._sequences: dict[str, Sequence] = {}
        self._stepless: deque[Sequence] = deque()
        self._aborts: deque[Sequence] = deque()
        # A heap; the number keeps sequences from being compared, and some may have ended.
        self._deadlines: list[tuple[float, int, Sequence]] = []

    def __len__(self) -> int:
        """Requests in progress."""
        return len(self._sequences)

    def __getitem__(self, request_id: str) -> Sequence:
        """The request of that id, which must be in progress."""
        return self._sequences[request_id]

    def find(self, request_id: str) -> Sequence | None:
        """The request of that id, if it is in progress."""
        return self._sequences.get(request_id)

    def is_live(self, sequence: Sequence) -> bool:
        """Whether this very request, not just one of its id, is in progress."""
        return self._sequences.get(sequence.request.request_id) is sequence

    def check_new(self, request_id: str) -> None:
        """Accept an id that is free.

        Raises:
            RequestError: It is that of a request in progress.
        """
        if request_id in self._sequences:
            raise RequestError(
                f"request_id={request_id!r} is that of a request in progress", param="request_id"
            )

    def add(self, sequence: Sequence) -> None:
        """Take in a request whose id is free."""
        request = sequence.request
        self._sequences[request.request_id] = sequence
        self.prompt_tokens_total += len(request.prompt_token_ids)
        if not sequence.needs_steps:
            self._stepless.append(sequence)
        if sequence.deadline is not None:
            heapq.heappush(self._deadlines, (sequence.deadline, id(sequence), sequence))

    def abort(self, sequence: Sequence) -> None:
        """Let `end_due` end a request; from any thread, even from a finalizer."""
        self._aborts.append(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Count a request as ended."""
        del self._sequences[sequence.request.request_id]
        self.finished_total += 1

    def end_due(self) -> Emitted:
        """End and forget what needs no step, what was aborted and what is late."""
        ended: Emitted = []
        while self._stepless:
            self._end(self._stepless.popleft(), "length", None, ended)
        while self._aborts:
            self._end(self._aborts.popleft(), "abort", None, ended)
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            self._end(heapq.heappop(self._deadlines)[-1], "abort", DEADLINE, ended)
        return ended

    def _end(
        self, sequence: Sequence, reason: FinishReason, stop_reason: str | None, ended: Emitted
    ) -> None:
        if self.is_live(sequence):
            ended.append((sequence, sequence.finish(reason, stop_reason)))
            self.forget(sequence)
            self.aborted_total += reason == "abort"
