"""The engine without threads: requests in, deltas out, one step at a time.

`step` belongs to one thread; the other methods may be called from any.
"""

from __future__ import annotations

import dataclasses
import heapq
import logging
import threading
import time
from collections import deque
from typing import TypeAlias

import numpy as np

from model.tokenizer import Tokenizer
from serving.admission import check_request
from serving.config import EngineConfig
from serving.engine_stats import EngineStats
from serving.errors import InvariantError, RequestError
from serving.output import Delta, FinishReason, TokenLogprob
from serving.pages import PagePool
from serving.programs import ON_DEVICE
from serving.request import GenerationRequest
from serving.runner import DecodeRow, HostLogprobs, Runner
from serving.sampler import Logprobs, Sampled
from serving.scheduler import Scheduler, SchedulerLimits
from serving.sequence import DEADLINE, Sequence
from serving.step_plan import Admission, DecodeToken, PromptChunk, StepPlan

logger = logging.getLogger(__name__)

Emitted: TypeAlias = list[tuple[Sequence, Delta]]
"""Deltas of a step with their requests, in order."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Launched:
    """A step that the device has, or has done.

    Attributes:
        chunks: Each with its request and the logprobs of its tokens.
        decodes: The requests of the decode step's rows.
        sampled: What that step gives; None without one.
        tokens: Tokens in the step.
        started: When it was launched, on the clock of `time.perf_counter`.
    """

    chunks: list[tuple[PromptChunk, Sequence, Logprobs]]
    decodes: list[Sequence]
    sampled: Sampled | None
    tokens: int
    started: float


class EngineCore:
    """Scheduler, runner and sequences put together."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer | None, config: EngineConfig) -> None:
        """Serve with a runner that is ready, or call `make_ready` before the first step.

        `config` is the runner's, or one that asks for no more than it has.
        """
        self.runner = runner
        self.tokenizer = tokenizer
        self.changed = threading.Condition()
        """Held while the books change; notified when there is something new to do."""
        self._config = config
        self._scheduler = Scheduler(
            _limits(config, runner),
            PagePool(config.num_pages(runner.max_model_len), config.page_size),
        )
        self._in_flight: _Launched | None = None
        self._sequences: dict[str, Sequence] = {}
        self._slots: dict[str, int] = {}
        self._stepless: deque[Sequence] = deque()
        self._aborts: deque[Sequence] = deque()
        # A heap; the number keeps sequences from being compared, and some may have ended.
        self._deadlines: list[tuple[float, int, Sequence]] = []
        self._steps = self._generated = self._prompt_tokens = self._finished = self._aborted = 0

    def make_ready(self) -> None:
        """Prepare the runner; how prompts may be cut and shared depends on what it finds."""
        self.runner.make_ready()
        self._scheduler.limits = _limits(self._config, self.runner)

    @property
    def vocab_size(self) -> int:
        """Token ids below this may be used; an imported model may have rows for no token."""
        size = self.runner.model.vocab_size
        return size if self.tokenizer is None else min(size, self.tokenizer.vocab_size)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return bool(self._sequences) or self._in_flight is not None

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
        """Launch the next step, then take in what the step before gave every request.

        So the device computes while the host turns tokens into text. A request that turns out to
        have ended is in one step more, whose token for it is dropped.
        """
        emitted: Emitted = []
        with self.changed:
            self._end_requests(emitted)
            plan = self._scheduler.plan()
        finished, self._in_flight = self._in_flight, self._launch(plan)
        gained = [] if finished is None else self._collect(finished)
        with self.changed:
            self._steps += 1
            for sequence, delta in gained:
                if delta.finish_reason is not None:
                    self._forget(sequence)
            if finished is not None and finished.tokens:
                elapsed = time.perf_counter() - finished.started
                self._scheduler.throughput.record(finished.tokens, elapsed)
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
                kv_tokens_used=self._scheduler.pool.held * self._config.page_size,
                kv_tokens_capacity=self._scheduler.pool.capacity * self._config.page_size,
                kv_tokens_findable=self._scheduler.pool.findable * self._config.page_size,
                prefill_tokens_total=self._scheduler.prompt_tokens_total,
                cached_tokens_total=self._scheduler.cached_tokens_total,
                preemptions_total=self._scheduler.preemptions_total,
                prompt_tokens_total=self._prompt_tokens,
                generated_tokens_total=self._generated,
                finished_total=self._finished,
                aborted_total=self._aborted,
                steps_total=self._steps,
                compilations_total=self.runner.compilations,
                recompilations_after_ready=0,
                is_batch_invariant=self.runner.is_batch_invariant,
                is_chunk_invariant=self.runner.is_chunk_invariant,
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
                prompt=request.prompt_token_ids,
                max_tokens=request.params.max_tokens,
                priority=request.priority,
                # Every prompt token that is to be scored must be computed.
                may_skip=self._config.use_prefix_cache and not sequence.wants_prompt_logprobs,
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

    def _launch(self, plan: StepPlan) -> _Launched | None:
        """Carry out a plan: slots change hands, then the programs are handed to the device."""
        started = time.perf_counter()
        for departure in plan.departed:
            self.runner.close_slot(self._slots.pop(departure.request_id))
        for admission in plan.admitted:
            self._open(admission)
        for placement in plan.placements:
            self.runner.place_page(placement.slot, placement.index, placement.page)
        chunks = [self._launch_chunk(chunk) for chunk in plan.chunks]
        rows = [self._row(decode) for decode in plan.decodes]
        if not chunks and not rows:
            return None
        return _Launched(
            chunks=chunks,
            decodes=[self._sequences[decode.request_id] for decode in plan.decodes],
            sampled=self.runner.decode(rows) if rows else None,
            tokens=sum(plan.tokens.values()),
            started=started,
        )

    def _open(self, admission: Admission) -> None:
        sequence = self._sequences[admission.request_id]
        self._slots[admission.request_id] = admission.slot
        self.runner.open_slot(
            admission.slot,
            sequence.request.params,
            seed=sequence.seed,
            prompt=sequence.request.prompt_token_ids,
            generated=sequence.generated,
            stops=sequence.stop_ids,
        )

    def _launch_chunk(self, chunk: PromptChunk) -> tuple[PromptChunk, Sequence, Logprobs]:
        sequence = self._sequences[chunk.request_id]
        prompt = sequence.request.prompt_token_ids
        end = chunk.start + chunk.length
        tokens = [*prompt, *sequence.generated][chunk.start : end]
        targets = None
        # A request that was preempted after its prompt was scored is not scored again.
        if sequence.wants_prompt_logprobs and chunk.start + 1 < len(prompt):
            targets = prompt[chunk.start + 1 : end + 1]
            targets += (0,) * (chunk.length - len(targets))
        return chunk, sequence, self.runner.prefill(chunk.slot, chunk.start, tokens, targets)

    def _row(self, decode: DecodeToken) -> DecodeRow:
        sequence = self._sequences[decode.request_id]
        prompt = sequence.request.prompt_token_ids
        generated = decode.position + 1 - len(prompt)
        token = ON_DEVICE
        if decode.is_known:
            token = sequence.generated[generated - 1] if generated else prompt[-1]
        return DecodeRow(token, decode.slot, decode.position, generated)

    def _collect(self, launched: _Launched) -> Emitted:
        """Wait for a step and give its results to the requests that still want them."""
        emitted: Emitted = []
        tokens: list[int] = []
        logprobs: HostLogprobs | None = None
        if launched.sampled is not None:
            tokens = np.asarray(launched.sampled.tokens).tolist()
            if any(each.request.params.logprobs is not None for each in launched.decodes):
                logprobs = HostLogprobs.read(launched.sampled.logprobs)
        else:
            # Steps must not pile up on the device: aborts and deadlines act between them.
            self.runner.wait(launched.chunks[-1][-1])
        for chunk, sequence, scored in launched.chunks:
            if self._is_live(sequence):
                self._take_prompt_logprobs(chunk, sequence, scored)
                self._end_if_scored(chunk, sequence, emitted)
        for row, sequence in enumerate(launched.decodes):
            if self._is_live(sequence):
                self._take_token(sequence, tokens[row], logprobs, row, emitted)
        return emitted

    def _take_prompt_logprobs(
        self, chunk: PromptChunk, sequence: Sequence, scored: Logprobs
    ) -> None:
        width = sequence.request.params.prompt_logprobs
        if width is None:
            return
        prompt = sequence.request.prompt_token_ids
        known, end = sequence.scored, min(chunk.start + chunk.length, len(prompt) - 1)
        if end > known:
            host = HostLogprobs.read(scored)
            sequence.add_prompt_logprobs(
                _token_logprob(prompt[index + 1], host, index - chunk.start, width)
                for index in range(known, end)
            )

    def _end_if_scored(self, chunk: PromptChunk, sequence: Sequence, emitted: Emitted) -> None:
        """End a request that only wanted its prompt scored, at its last chunk."""
        request = sequence.request
        last = chunk.start + chunk.length == len(request.prompt_token_ids) - 1
        if last and not request.params.max_tokens:
            emitted.append((sequence, sequence.finish("length")))

    def _take_token(
        self,
        sequence: Sequence,
        token: int,
        logprobs: HostLogprobs | None,
        row: int,
        emitted: Emitted,
    ) -> None:
        """Give a request its sampled token."""
        request_id = sequence.request.request_id
        if token < 0:
            logger.error("request %s: the logits are not finite", request_id)
            emitted.append((sequence, sequence.finish("error")))
            return
        width = sequence.request.params.logprobs
        logprob = None
        if width is not None and logprobs is not None:
            logprob = _token_logprob(token, logprobs, row, width)
        self._generated += 1
        self._scheduler.add_token(request_id, token)
        emitted.append((sequence, sequence.add_token(token, logprob)))

    def _check(self) -> None:
        """Balance the books of an idle engine."""
        self._scheduler.check()
        if len(self._scheduler) or self._slots:
            raise InvariantError(
                f"no request is in progress, but {len(self._scheduler)} are scheduled and the "
                f"slots {sorted(self._slots.values())} are held"
            )


def _limits(config: EngineConfig, runner: Runner) -> SchedulerLimits:
    # What is computed in one way only may be shared and cut in any way.
    chunk = runner.buckets.largest_chunk
    is_free = runner.is_chunk_invariant
    return SchedulerLimits(
        max_slots=config.max_slots,
        token_budget=config.token_budget,
        chunk_tokens=chunk,
        mixed_chunk_tokens=min(chunk, config.mixed_prefill_tokens) if is_free else chunk,
        share_tokens=config.page_size if is_free else chunk,
        max_queued_requests=config.max_queued_requests,
        max_queued_tokens=config.max_queued_tokens,
        ageing_s=config.ageing_s,
    )


def _token_logprob(token: int, logprobs: HostLogprobs, row: int, width: int) -> TokenLogprob:
    top_ids = logprobs.top_ids[row, :width].tolist()
    top = logprobs.top[row, :width].tolist()
    return TokenLogprob(
        token_id=token,
        logprob=float(logprobs.chosen[row]),
        top=tuple(zip(top_ids, top, strict=True)),
    )
