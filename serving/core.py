"""The engine without threads: requests in, deltas out, one step at a time.

`step` belongs to one thread; the other methods may be called from any.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from typing import TypeAlias

from model.tokenizer import Tokenizer
from serving.admission import check_request
from serving.config import EngineConfig
from serving.engine_stats import EngineStats
from serving.errors import InvariantError, RequestError
from serving.output import Delta, FinishReason, TokenLogprob
from serving.request import GenerationRequest
from serving.runner import DecodeRow, HostLogprobs, Runner
from serving.sampler import Logprobs
from serving.scheduler import DecodeToken, PromptChunk, Scheduler, StepPlan
from serving.sequence import DEADLINE, Sequence

logger = logging.getLogger(__name__)

Emitted: TypeAlias = list[tuple[Sequence, Delta]]
"""Deltas of a step with their requests, in order."""


class EngineCore:
    """Scheduler, runner and sequences put together."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer | None, config: EngineConfig) -> None:
        """Serve with a runner that `make_ready` has prepared (or will before the first step)."""
        self.runner = runner
        self.tokenizer = tokenizer
        self.changed = threading.Condition()
        """Held while the books change; notified when there is something new to do."""
        self._config = config
        self._scheduler = Scheduler(
            max_slots=config.max_slots,
            token_budget=config.token_budget,
            chunk_tokens=runner.buckets.largest_chunk,
            max_queued_requests=config.max_queued_requests,
            max_queued_tokens=config.max_queued_tokens,
        )
        self._sequences: dict[str, Sequence] = {}
        self._slots: dict[str, int] = {}
        self._stepless: deque[Sequence] = deque()
        self._aborts: deque[Sequence] = deque()
        # A heap; the number keeps sequences from being compared, and some may have ended.
        self._deadlines: list[tuple[float, int, Sequence]] = []
        self._steps = self._generated = self._prompt_tokens = self._finished = self._aborted = 0

    @property
    def vocab_size(self) -> int:
        """Token ids below this may be used; an imported model may have rows for no token."""
        size = self.runner.model.vocab_size
        return size if self.tokenizer is None else min(size, self.tokenizer.vocab_size)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return bool(self._sequences)

    def prepare(self, request: GenerationRequest) -> Sequence:
        """Check a request against the model.

        Raises:
            RequestError: It cannot run on this model.
        """
        check_request(
            request,
            vocab_size=self.vocab_size,
            max_model_len=self.runner.max_model_len,
            has_tokenizer=self.tokenizer is not None,
        )
        deadline = None
        if request.deadline_s is not None:
            deadline = time.monotonic() + request.deadline_s
        eos_ids = () if self.tokenizer is None else self.tokenizer.eos_ids
        return Sequence(request, self.tokenizer, eos_ids=eos_ids, deadline=deadline)

    def enqueue(self, sequence: Sequence) -> None:
        """Queue a prepared request.

        Raises:
            RequestError: Its id is that of a request in progress.
            OverloadedError: The queue is full.
        """
        with self.changed:
            self._enqueue(sequence)
            self.changed.notify_all()

    def find(self, request_id: str) -> Sequence | None:
        """The request in progress with that id."""
        return self._sequences.get(request_id)

    def abort(self, sequence: Sequence) -> None:
        """End a request at the next step's start; one that has ended is left alone.

        Takes no lock and wakes nobody, so that a finalizer may call it: while there is a request
        to abort, there are steps.
        """
        self._aborts.append(sequence)

    def step(self) -> Emitted:
        """Do one step's work; returns what every request gained."""
        started = time.perf_counter()
        emitted: Emitted = []
        with self.changed:
            self._end_requests(emitted)
            plan = self._scheduler.plan()
        for request_id, slot in plan.admitted:
            self._open(request_id, slot)
        gained = self._run(plan)
        with self.changed:
            self._steps += 1
            for sequence, delta in gained:
                if delta.finish_reason is not None:
                    self._forget(sequence)
            if plan.tokens:
                elapsed = time.perf_counter() - started
                self._scheduler.throughput.record(sum(plan.tokens.values()), elapsed)
            if not self._sequences:
                self._check()
        return emitted + gained

    def stats(self) -> EngineStats:
        """The figures of this moment."""
        with self.changed:
            return EngineStats(
                queued=self._scheduler.num_waiting,
                queued_tokens=self._scheduler.queued_tokens,
                running=self._scheduler.num_running,
                max_slots=self._config.max_slots,
                kv_tokens_used=self._scheduler.computed_tokens,
                kv_tokens_capacity=self._config.max_slots * self.runner.max_model_len,
                prompt_tokens_total=self._prompt_tokens,
                generated_tokens_total=self._generated,
                finished_total=self._finished,
                aborted_total=self._aborted,
                steps_total=self._steps,
                compilations_total=self.runner.compilations,
                recompilations_after_ready=0,
                is_batch_invariant=self.runner.is_batch_invariant,
            )

    def _enqueue(self, sequence: Sequence) -> None:
        request = sequence.request
        if request.request_id in self._sequences:
            raise RequestError(
                f"request_id={request.request_id!r} is that of a request in progress",
                param="request_id",
            )
        if sequence.needs_steps:
            self._scheduler.add(
                request.request_id,
                prompt_tokens=len(request.prompt_token_ids),
                max_tokens=request.params.max_tokens,
                priority=request.priority,
            )
        else:
            self._stepless.append(sequence)
        self._sequences[request.request_id] = sequence
        self._prompt_tokens += len(request.prompt_token_ids)
        if sequence.deadline is not None:
            heapq.heappush(self._deadlines, (sequence.deadline, id(sequence), sequence))

    def _end_requests(self, emitted: Emitted) -> None:
        """End what needs no step, what was aborted and what is late."""
        while self._stepless:
            sequence = self._stepless.popleft()
            if self._is_live(sequence):
                self._end(sequence, "length", None, emitted)
        while self._aborts:
            sequence = self._aborts.popleft()
            if self._is_live(sequence):
                self._end(sequence, "abort", None, emitted)
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            sequence = heapq.heappop(self._deadlines)[-1]
            if self._is_live(sequence):
                self._end(sequence, "abort", DEADLINE, emitted)

    def _is_live(self, sequence: Sequence) -> bool:
        return self._sequences.get(sequence.request.request_id) is sequence

    def _end(
        self, sequence: Sequence, reason: FinishReason, stop_reason: str | None, emitted: Emitted
    ) -> None:
        emitted.append((sequence, sequence.finish(reason, stop_reason)))
        self._forget(sequence)
        self._aborted += reason == "abort"

    def _forget(self, sequence: Sequence) -> None:
        request_id = sequence.request.request_id
        del self._sequences[request_id]
        self._finished += 1
        if request_id in self._scheduler:
            self._scheduler.remove(request_id)
        slot = self._slots.pop(request_id, None)
        if slot is not None:
            self.runner.close_slot(slot)

    def _open(self, request_id: str, slot: int) -> None:
        sequence = self._sequences[request_id]
        self._slots[request_id] = slot
        self.runner.open_slot(
            slot,
            sequence.request.params,
            seed=sequence.seed,
            prompt=sequence.request.prompt_token_ids,
            stops=sequence.stop_ids,
        )

    def _start_chunk(self, chunk: PromptChunk) -> Logprobs:
        sequence = self._sequences[chunk.request_id]
        prompt = sequence.request.prompt_token_ids
        end = chunk.start + chunk.length
        targets = prompt[chunk.start + 1 : end + 1] if sequence.wants_prompt_logprobs else None
        return self.runner.prefill(chunk.slot, chunk.start, prompt[chunk.start : end], targets)

    def _run(self, plan: StepPlan) -> Emitted:
        """Run a plan's programs and take in what they gave."""
        emitted: Emitted = []
        pending = [self._start_chunk(chunk) for chunk in plan.chunks]
        tokens: list[int] = []
        logprobs: HostLogprobs | None = None
        if plan.decodes:
            tokens, logprobs = self._decode(plan.decodes)
        elif pending:
            # Steps must not pile up on the device: aborts and deadlines act between them.
            self.runner.wait(pending[-1])
        for chunk, scored in zip(plan.chunks, pending, strict=True):
            self._take_prompt_logprobs(chunk, scored)
            self._end_if_scored(chunk, emitted)
        for row, decode in enumerate(plan.decodes):
            self._take_token(decode, tokens[row], logprobs, row, emitted)
        return emitted

    def _decode(self, decodes: tuple[DecodeToken, ...]) -> tuple[list[int], HostLogprobs | None]:
        rows = []
        wants_logprobs = False
        for decode in decodes:
            sequence = self._sequences[decode.request_id]
            wants_logprobs |= sequence.request.params.logprobs is not None
            rows.append(
                DecodeRow(sequence.newest, decode.slot, decode.position, sequence.generated)
            )
        return self.runner.decode(rows, wants_logprobs=wants_logprobs)

    def _take_prompt_logprobs(self, chunk: PromptChunk, scored: Logprobs) -> None:
        sequence = self._sequences[chunk.request_id]
        width = sequence.request.params.prompt_logprobs
        if width is not None:
            prompt = sequence.request.prompt_token_ids
            host = HostLogprobs.read(scored)
            sequence.add_prompt_logprobs(
                _token_logprob(prompt[chunk.start + 1 + row], host, row, width)
                for row in range(chunk.length)
            )

    def _end_if_scored(self, chunk: PromptChunk, emitted: Emitted) -> None:
        """End a request that only wanted its prompt scored, at its last chunk."""
        sequence = self._sequences[chunk.request_id]
        request = sequence.request
        last = chunk.start + chunk.length == len(request.prompt_token_ids) - 1
        if last and not request.params.max_tokens:
            emitted.append((sequence, sequence.finish("length")))

    def _take_token(
        self,
        decode: DecodeToken,
        token: int,
        logprobs: HostLogprobs | None,
        row: int,
        emitted: Emitted,
    ) -> None:
        """Give a request its sampled token."""
        sequence = self._sequences[decode.request_id]
        if token < 0:
            logger.error("request %s: the logits are not finite", decode.request_id)
            self.runner.erase_slot(decode.slot)
            emitted.append((sequence, sequence.finish("error")))
            return
        width = sequence.request.params.logprobs
        logprob = None
        if width is not None and logprobs is not None:
            logprob = _token_logprob(token, logprobs, row, width)
        self._generated += 1
        emitted.append((sequence, sequence.add_token(token, logprob)))

    def _check(self) -> None:
        """Balance the books of an idle engine."""
        self._scheduler.check()
        if len(self._scheduler) or self._slots:
            raise InvariantError(
                f"no request is in progress, but {len(self._scheduler)} are scheduled and the "
                f"slots {sorted(self._slots.values())} are held"
            )


def _token_logprob(token: int, logprobs: HostLogprobs, row: int, width: int) -> TokenLogprob:
    top_ids = logprobs.top_ids[row, :width].tolist()
    top = logprobs.top[row, :width].tolist()
    return TokenLogprob(
        token_id=token,
        logprob=float(logprobs.chosen[row]),
        top=tuple(zip(top_ids, top, strict=True)),
    )
