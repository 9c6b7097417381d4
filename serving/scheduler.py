"""Which request gets how many tokens in the next step: pure bookkeeping, no arrays.

There is no prefill and no decode phase: a step is `{request: number of tokens}`. A prompt of P
tokens is taken in by chunks up to its token P-1; the last prompt token and every generated one are
then fed one a step, and each such step samples the next token. So sampling happens in one place.

Steps are planned before the tokens of the step before are known. When pages run out, the request
that is last in order gives its pages up and waits; its tokens are computed again later, as far as
they are not found in the cache by then.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from serving.errors import InvariantError, OverloadedError
from serving.limits import SchedulerLimits
from serving.page_pools import PagePools
from serving.pages import PagePool
from serving.running import RunningRequests
from serving.scheduled import ScheduledRequest
from serving.step_plan import Admission, DecodeToken, Departure, PromptChunk, StepPlan
from serving.throughput import Throughput
from serving.waiting import WaitingQueue


class Scheduler:
    """Shares slots, pages and the token budget out. Not thread-safe: the owner holds a lock."""

    def __init__(
        self,
        limits: SchedulerLimits,
        *pools: PagePool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty, with all pages of the pools: one, or one for each chip that has its own."""
        self.limits = limits
        self.pool = PagePools(pools)
        self.throughput = Throughput()
        self.prompt_tokens_total = 0
        self.cached_tokens_total = 0
        self.preemptions_total = 0
        self._clock = clock
        self._arrivals = 0
        self._requests: dict[str, ScheduledRequest] = {}
        self._waiting = WaitingQueue()
        self._running = RunningRequests(limits.max_slots, self.pool)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens and `max_tokens` of the requests that wait."""
        return self._waiting.tokens

    @property
    def computed_tokens(self) -> int:
        """Tokens of running requests in the cache."""
        return sum(request.computed for request in self._running)

    def __len__(self) -> int:
        """Requests that were added and not removed."""
        return len(self._requests)

    def __contains__(self, request_id: object) -> bool:
        """Whether a request was added and not removed."""
        return request_id in self._requests

    def add(
        self,
        request_id: str,
        *,
        prompt: Sequence[int],
        max_tokens: int,
        priority: int = 0,
        may_skip: bool = True,
    ) -> None:
        """Queue a request; smaller priorities first, equal ones in order of arrival.

        Args:
            request_id: Its id.
            prompt: Token ids.
            max_tokens: Most tokens to generate.
            priority: Each level counts as having arrived `ageing_s` later.
            may_skip: Whether prompt tokens that are found in the cache may stay uncomputed.

        Raises:
            OverloadedError: Too many requests or tokens wait already.
            ValueError: The id is taken, or the request needs no step at all.
        """
        if request_id in self._requests:
            raise ValueError(f"request {request_id!r} is already scheduled")
        if not prompt or len(prompt) + max_tokens < 2:
            raise ValueError(f"request {request_id!r} has nothing to compute")
        if len(self._waiting) >= self._running.free_slots:
            self._check_room(len(prompt) + max_tokens)
        self._arrivals += 1
        request = ScheduledRequest(
            request_id=request_id,
            tokens=list(prompt),
            prompt_tokens=len(prompt),
            max_tokens=max_tokens,
            order=(self._clock() + priority * self.limits.ageing_s, self._arrivals),
            may_skip=may_skip,
        )
        self._requests[request_id] = request
        self._waiting.add(request)

    def add_token(self, request_id: str, token: int) -> None:
        """Learn the next generated token of a request that still runs or waits."""
        self._requests[request_id].tokens.append(token)

    def remove(self, request_id: str) -> None:
        """Forget a request that ended; if it waits or runs, its place is free at once.

        Raises:
            KeyError: There is no such request.
        """
        request = self._requests.pop(request_id)
        if request_id in self._running:
            self._leave(request)
        else:
            self._waiting.remove(request)

    def plan(self) -> StepPlan:
        """Give slots and pages to waiting requests and share out the budget of the next step.

        The plan counts as carried out: the next call continues after it.
        """
        complete = [self._leave(request) for request in [*self._running] if request.is_complete]
        decodes, preempted = self._plan_decodes()
        # What was just given up must not be taken back by the one who gave it.
        admitted = [] if preempted else self._admit()
        chunks = self._plan_chunks(decodes)
        return StepPlan(
            departed=(*complete, *preempted),
            admitted=tuple(admitted),
            placements=self._running.take_placements(),
            chunks=tuple(chunks),
            decodes=tuple(decodes),
        )

    def add_drafts(self, plan: StepPlan, drafts: Mapping[str, tuple[int, ...]]) -> StepPlan:
        """The last plan with drafts, as far as tokens, pages and budget go.

        Before the next plan, `reject` must take back what did not hold, or the request be removed.
        Prompts go before drafts: a step with chunks gets none.

        Args:
            plan: What `plan` gave, not carried out yet.
            drafts: Tokens guessed to follow the newest known token, by request.
        """
        if plan.chunks:
            return plan
        budget = self.limits.token_budget - len(plan.decodes)
        decodes = []
        for decode in plan.decodes:
            draft = drafts.get(decode.request_id, ()) if decode.is_known else ()
            draft = draft[: self._make_room(self._requests[decode.request_id], len(draft), budget)]
            budget -= len(draft)
            decodes.append(dataclasses.replace(decode, draft=draft) if draft else decode)
        placements = (*plan.placements, *self._running.take_placements())
        return dataclasses.replace(plan, decodes=tuple(decodes), placements=placements)

    def reject(self, request_id: str, count: int) -> None:
        """Take back the last `count` tokens of a draft: what was computed for them is void."""
        self._requests[request_id].computed -= count

    def check(self) -> None:
        """Balance the books.

        Raises:
            InvariantError: A slot or page is lost or held twice, or a request is lost or counted
                wrong.
        """
        running = {request.request_id: request.slot for request in self._running}
        waiting = self._waiting.request_ids
        faults = [*self._running.faults(), *self._waiting.faults()]
        if not self._requests.keys() >= {*waiting, *running}:
            faults.append("requests")
        if running.keys() & set(waiting):
            faults.append("places")
        if faults:
            raise InvariantError(
                f"scheduler: {', '.join(faults)} do not balance: running {running}, "
                f"waiting {waiting}, queued_tokens {self.queued_tokens}"
            )
        self.pool.check(self._running)

    def _check_room(self, total_tokens: int) -> None:
        limits = self.limits
        if len(self._waiting) >= limits.max_queued_requests + self._running.free_slots:
            raise OverloadedError(
                f"{len(self._waiting)} requests wait already; at most "
                f"{limits.max_queued_requests} may (max_queued_requests)",
                retry_after_s=self.throughput.seconds_for(self.queued_tokens),
            )
        if self.queued_tokens + total_tokens > limits.max_queued_tokens:
            raise OverloadedError(
                f"{self.queued_tokens} tokens wait already and this request has {total_tokens}; "
                f"at most {limits.max_queued_tokens} may wait (max_queued_tokens)",
                retry_after_s=self.throughput.seconds_for(self.queued_tokens),
            )

    def _plan_decodes(self) -> tuple[list[DecodeToken], list[Departure]]:
        """Feed every request that can be; the last in order make room where pages run out."""
        in_order = self._running.in_order()
        decodes: list[DecodeToken] = []
        preempted: list[Departure] = []
        while in_order:
            request = in_order.pop(0)
            if request.can_decode and self._has_page(request, in_order, preempted):
                decodes.append(self._decode(request))
        return decodes, preempted

    def _has_page(
        self, request: ScheduledRequest, later: list[ScheduledRequest], preempted: list[Departure]
    ) -> bool:
        """Whether a request's next token has a page; at the cost of the last in order, or its own.

        Only who is on the same chip can make room.
        """
        pool, chip = self.pool.of(request), self.pool.chip_of(request.slot)
        while request.computed == len(request.pages) * pool.page_size:
            if pool.available:
                self._running.grow(request, 1)
                continue
            beside = [one for one in later if self.pool.chip_of(one.slot) == chip]
            victim = beside[-1] if beside else request
            preempted.append(self._preempt(victim))
            if victim is request:
                return False
            later.remove(victim)
        return True

    def _admit(self) -> list[Admission]:
        """Requests from the head of the queue, as long as slots and pages last."""
        admitted: list[Admission] = []
        while self._waiting and self._running.free_slots:
            request = self._waiting.first
            place = self._find_place(request)
            if place is None:
                break
            chip, found, wanted = place
            self._waiting.remove(request)
            self._running.enter(request, found, wanted, chip)
            self.prompt_tokens_total += request.prefill_end
            self.cached_tokens_total += request.computed
            admitted.append(
                Admission(
                    request_id=request.request_id,
                    slot=request.slot,
                    cached_tokens=request.computed,
                )
            )
        return admitted

    def _find_place(self, request: ScheduledRequest) -> tuple[int, list[int], int] | None:
        """The chip that has most of a request, then most room: the pages found, now held, and how
        many more it wants; None if no chip with a free slot has so many.
        """
        page_size = self.pool.page_size
        pools = list(self.pool)
        by_chip = {
            chip: request.find_prefix(pools[chip], self.limits.share_tokens // page_size)
            for chip in self._running.open_chips
        }
        for chip in sorted(
            by_chip, key=lambda one: (-len(by_chip[one]), -pools[one].available, one)
        ):
            pool, found = pools[chip], by_chip[chip]
            pool.hold(found)
            # The pages of all its tokens: once begun, a prompt is taken in without waiting.
            wanted = -(-len(request.tokens) // page_size) - len(found)
            # Others go on for a while before they need a page of what is left.
            if wanted + self._running.on_chip(chip) <= pool.available:
                return chip, found, wanted
            pool.release(found)
        return None

    def _plan_chunks(self, decodes: list[DecodeToken]) -> list[PromptChunk]:
        """Prompt chunks in order, as far as the budget goes; adds decodes for completed prompts."""
        fed = {decode.request_id for decode in decodes}
        longest = self.limits.chunk_tokens
        budget = self.limits.token_budget - self.limits.max_slots
        if fed:
            # Streams that run shall not wait long for prompts that arrive.
            longest = budget = self.limits.mixed_chunk_tokens
        chunks: list[PromptChunk] = []
        for request in self._running.in_order():
            while not request.is_prefilled:
                length = min(longest, request.prefill_end - request.computed)
                if length > budget:
                    return chunks
                budget -= length
                chunks.append(self._chunk(request, length))
            if request.can_decode and request.request_id not in fed:
                decodes.append(self._decode(request))
        return chunks

    def _chunk(self, request: ScheduledRequest, length: int) -> PromptChunk:
        chunk = PromptChunk(
            request_id=request.request_id,
            slot=request.slot,
            start=request.computed,
            length=length,
        )
        request.computed += length
        # Of a cache that is not chunk-invariant, whole chunks alone are shared.
        share = self.limits.share_tokens
        request.register(self.pool.of(request), request.prefill_end // share * share)
        return chunk

    def _decode(self, request: ScheduledRequest) -> DecodeToken:
        decode = DecodeToken(
            request_id=request.request_id,
            slot=request.slot,
            position=request.computed,
            is_known=request.computed < len(request.tokens),
        )
        request.computed += 1
        return decode

    def _make_room(self, request: ScheduledRequest, wanted: int, budget: int) -> int:
        """How many tokens of a draft a request may have; gives it their pages."""
        # The last token that is sampled is never fed.
        count = min(wanted, budget, request.total_tokens - 1 - request.computed)
        # Guesses take no page that somebody will need for certain.
        chip = self.pool.chip_of(request.slot)
        spare = max(0, self.pool.of(request).available - self._running.on_chip(chip))
        room = (len(request.pages) + spare) * self.pool.page_size - request.computed
        count = max(0, min(count, room))
        request.computed += count
        missing = -(-request.computed // self.pool.page_size) - len(request.pages)
        if missing > 0:
            self._running.grow(request, missing)
        return count

    def _preempt(self, request: ScheduledRequest) -> Departure:
        departure = self._leave(request)
        self._waiting.add(request)
        self.preemptions_total += 1
        return departure

    def _leave(self, request: ScheduledRequest) -> Departure:
        # Generated tokens end anywhere in a chunk, so only a chunk-invariant cache shares them.
        is_free = self.limits.share_tokens == self.pool.page_size
        return self._running.leave(request, may_share=is_free)
