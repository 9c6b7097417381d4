"""The scheduler's bounds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulerLimits:
    """The scheduler's bounds; `serving.config.EngineConfig` has their meaning for people.

    Attributes:
        max_slots: Requests that run at the same time.
        token_budget: Most tokens in a step; at least `chunk_tokens + max_slots`.
        chunk_tokens: Longest prompt chunk; a multiple of the page size.
        mixed_chunk_tokens: Longest prompt chunk in a step that also feeds running requests, and
            most prompt tokens of such a step; a multiple of the page size.
        share_tokens: Cached prefixes are used in multiples of this; a multiple of the page size.
        max_queued_requests: Requests that may wait.
        max_queued_tokens: Tokens (prompt and `max_tokens`) that may wait.
        ageing_s: Seconds of waiting that make up for one level of priority.
    """

    max_slots: int
    token_budget: int
    chunk_tokens: int
    mixed_chunk_tokens: int
    share_tokens: int
    max_queued_requests: int
    max_queued_tokens: int
    ageing_s: float = 30.0

    def __post_init__(self) -> None:
        """Check what would make a request wait for ever."""
        if self.token_budget < self.chunk_tokens + self.max_slots:
            raise ValueError(
                f"token_budget={self.token_budget} < {self.chunk_tokens} + {self.max_slots}"
            )
