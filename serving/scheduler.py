"""Which request gets how many tokens in the next step: pure bookkeeping, no arrays.

There is no prefill and no decode phase: a step is `{request: number of tokens}`. A prompt of P
tokens is taken in by chunks up to its token P-1; the last prompt token and every generated one are
then fed one a step, and each such step samples the next token. So sampling happens in one place,
and chunk boundaries depend on the request alone.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
from collections.abc import Mapping

from serving.errors import InvariantError, OverloadedError
from serving.throughput import Throughput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PromptChunk:
    """Take prompt tokens [start, start + length) of a request into its slot."""

    request_id: str
    slot: int
    start: int
    length: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeToken:
    """Feed a request's newest token, which stands at `position`, and sample the next."""

    request_id: str
    slot: int
    position: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step: the chunks in order, then one decode step for all of `decodes`.

    A request whose prompt is completed by a chunk of this step is also in `decodes`.

    Attributes:
        admitted: Request and slot of those that left the queue for this step.
        chunks: Prompt tokens to take in.
        decodes: Tokens to feed, in distinct slots.
    """

    admitted: tuple[tuple[str, int], ...]
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
        return tokens


@dataclasses.dataclass(slots=True, kw_only=True)
class _Entry:
    """A request's books; `computed` counts its tokens in the cache."""

    request_id: str
    prompt_tokens: int
    max_tokens: int
    order: tuple[int, int]  # priority, arrival
    slot: int = -1
    computed: int = 0

    @property
    def prefill_tokens(self) -> int:
        return self.prompt_tokens - 1

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.max_tokens


class Scheduler:
    """Queue, slots and the token budget. Not thread-safe: the owner holds a lock."""

    def __init__(
        self,
        *,
        max_slots: int,
        token_budget: int,
        chunk_tokens: int,
        max_queued_requests: int,
        max_queued_tokens: int,
    ) -> None:
        """Start empty. `token_budget` must be at least `chunk_tokens + max_slots`."""
        if token_budget < chunk_tokens + max_slots:
            raise ValueError(f"token_budget={token_budget} < {chunk_tokens} + {max_slots}")
        self.max_slots = max_slots
        self._token_budget = token_budget
        self._chunk_tokens = chunk_tokens
        self._max_queued_requests = max_queued_requests
        self._max_queued_tokens = max_queued_tokens
        self._arrivals = 0
        self._waiting: list[tuple[tuple[int, int], str]] = []  # sorted
        self._entries: dict[str, _Entry] = {}
        self._running: dict[str, _Entry] = {}
        self._free_slots = list(range(max_slots))  # a heap: low slots first
        self.queued_tokens = 0
        self.throughput = Throughput()

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def computed_tokens(self) -> int:
        """Tokens of running requests in the cache."""
        return sum(entry.computed for entry in self._running.values())

    def __len__(self) -> int:
        """Requests that wait or run."""
        return len(self._entries)

    def __contains__(self, request_id: object) -> bool:
        """Whether a request waits or runs."""
        return request_id in self._entries

    def add(
        self, request_id: str, *, prompt_tokens: int, max_tokens: int, priority: int = 0
    ) -> None:
        """Queue a request; smaller priorities first, equal ones in order of arrival.

        Raises:
            OverloadedError: Too many requests or tokens wait already.
            ValueError: The id is taken, or the request needs no step at all.
        """
        if request_id in self._entries:
            raise ValueError(f"request {request_id!r} is already scheduled")
        if prompt_tokens < 1 or prompt_tokens + max_tokens < 2:
            raise ValueError(f"request {request_id!r} has nothing to compute")
        if len(self._waiting) >= len(self._free_slots):
            self._check_room(prompt_tokens + max_tokens)
        self._arrivals += 1
        entry = _Entry(
            request_id=request_id,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            order=(priority, self._arrivals),
        )
        self._entries[request_id] = entry
        bisect.insort(self._waiting, (entry.order, request_id))
        self.queued_tokens += entry.total_tokens

    def remove(self, request_id: str) -> None:
        """Forget a request that ended, waiting or running; its slot is free at once.

        Raises:
            KeyError: There is no such request.
        """
        entry = self._entries.pop(request_id)
        if self._running.pop(request_id, None) is not None:
            heapq.heappush(self._free_slots, entry.slot)
        else:
            index = bisect.bisect_left(self._waiting, (entry.order, request_id))
            del self._waiting[index]
            self.queued_tokens -= entry.total_tokens

    def plan(self) -> StepPlan:
        """Give free slots to waiting requests and share out the budget of the next step.

        The plan counts as carried out: the next call continues after it.
        """
        admitted = self._fill_slots()
        chunks, decodes = self._share_out()
        return StepPlan(admitted=admitted, chunks=tuple(chunks), decodes=tuple(decodes))

    def check(self) -> None:
        """Balance the books.

        Raises:
            InvariantError: A slot is lost or held twice, or a request is lost or counted wrong.
        """
        used = [entry.slot for entry in self._running.values()]
        waiting = [request_id for _, request_id in self._waiting]
        tokens = sum(self._entries[request_id].total_tokens for request_id in waiting)
        over = [e.request_id for e in self._running.values() if e.computed > e.total_tokens]
        for name, holds in (
            ("slots", sorted(used + self._free_slots) == list(range(self.max_slots))),
            ("requests", sorted([*waiting, *self._running]) == sorted(self._entries)),
            ("queue order", self._waiting == sorted(self._waiting)),
            ("queued tokens", self.queued_tokens == tokens),
            ("request lengths", not over),
        ):
            if not holds:
                raise InvariantError(
                    f"scheduler: {name} do not balance: running {used}, free {self._free_slots}, "
                    f"waiting {waiting}, queued_tokens {self.queued_tokens}, over length {over}"
                )

    def _check_room(self, total_tokens: int) -> None:
        if len(self._waiting) >= self._max_queued_requests + len(self._free_slots):
            raise OverloadedError(
                f"{len(self._waiting)} requests wait already; at most "
                f"{self._max_queued_requests} may (max_queued_requests)",
                retry_after_s=self.throughput.seconds_for(self.queued_tokens),
            )
        if self.queued_tokens + total_tokens > self._max_queued_tokens:
            raise OverloadedError(
                f"{self.queued_tokens} tokens wait already and this request has {total_tokens}; "
                f"at most {self._max_queued_tokens} may wait (max_queued_tokens)",
                retry_after_s=self.throughput.seconds_for(self.queued_tokens),
            )

    def _share_out(self) -> tuple[list[PromptChunk], list[DecodeToken]]:
        """Every decode, then chunks in order, as far as the budget goes."""
        in_order = sorted(self._running.values(), key=lambda entry: entry.order)
        decodes = [
            self._decode(entry)
            for entry in in_order
            if entry.max_tokens and entry.computed >= entry.prefill_tokens
        ]
        budget = self._token_budget - len(decodes)
        chunks: list[PromptChunk] = []
        for entry in in_order:
            while entry.computed < entry.prefill_tokens:
                length = min(self._chunk_tokens, entry.prefill_tokens - entry.computed)
                completes = entry.computed + length == entry.prefill_tokens
                samples = completes and entry.max_tokens > 0
                if length + samples > budget:
                    return chunks, decodes
                budget -= length + samples
                chunks.append(self._chunk(entry, length))
                if samples:
                    decodes.append(self._decode(entry))
        return chunks, decodes

    def _fill_slots(self) -> tuple[tuple[str, int], ...]:
        admitted = []
        count = min(len(self._free_slots), len(self._waiting))
        for _, request_id in self._waiting[:count]:
            entry = self._entries[request_id]
            entry.slot = heapq.heappop(self._free_slots)
            self._running[request_id] = entry
            self.queued_tokens -= entry.total_tokens
            admitted.append((request_id, entry.slot))
        del self._waiting[:count]
        return tuple(admitted)

    @staticmethod
    def _chunk(entry: _Entry, length: int) -> PromptChunk:
        chunk = PromptChunk(
            request_id=entry.request_id, slot=entry.slot, start=entry.computed, length=length
        )
        entry.computed += length
        return chunk

    @staticmethod
    def _decode(entry: _Entry) -> DecodeToken:
        decode = DecodeToken(request_id=entry.request_id, slot=entry.slot, position=entry.computed)
        entry.computed += 1
        return decode
