"""Requests that wait for a slot, in the order in which they will get one."""

from __future__ import annotations

import bisect

from serving.scheduled import ScheduledRequest


class WaitingQueue:
    """A sorted list of requests, and how many tokens they are.

    Attributes:
        tokens: Prompt tokens and `max_tokens` of all of them.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self.tokens = 0
        self._requests: list[ScheduledRequest] = []  # by order, which no two share

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._requests)

    @property
    def first(self) -> ScheduledRequest:
        """The next to get a slot; there must be one."""
        return self._requests[0]

    @property
    def request_ids(self) -> list[str]:
        """Ids in order."""
        return [request.request_id for request in self._requests]

    def add(self, request: ScheduledRequest) -> None:
        """Let a request wait at its place in the order."""
        bisect.insort(self._requests, request, key=_order)
        self.tokens += request.total_tokens

    def remove(self, request: ScheduledRequest) -> None:
        """Forget a request; one that does not wait is left alone."""
        index = bisect.bisect_left(self._requests, request.order, key=_order)
        if self._requests[index : index + 1] == [request]:
            del self._requests[index]
            self.tokens -= request.total_tokens

    def faults(self) -> list[str]:
        """Which of its books do not balance."""
        tokens = sum(request.total_tokens for request in self._requests)
        checks = (
            ("queue order", self._requests == sorted(self._requests, key=_order)),
            ("queued tokens", self.tokens == tokens),
        )
        return [name for name, holds in checks if not holds]


def _order(request: ScheduledRequest) -> tuple[float, int]:
    return request.order
