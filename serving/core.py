"""The engine without threads: requests in, deltas out, one step at a time.

`step` belongs to one thread; the other methods may be called from any.
"""

from __future__ import annotations

import threading
import time

from model.tokenizer import Tokenizer
from serving.admission import check_request
from serving.collecting import Collector
from serving.config import EngineConfig
from serving.constraining import constrain
from serving.engine_stats import EngineStats
from serving.errors import InvariantError, RequestError
from serving.grammar import GrammarCompiler
from serving.in_progress import RequestsInProgress
from serving.launching import LaunchedStep, Launcher
from serving.limits import SchedulerLimits
from serving.pages import PagePool
from serving.request import GenerationRequest
from serving.runner import Runner
from serving.scheduler import Scheduler
from serving.sequence import Emitted, Sequence
from serving.speculation import Speculator
from serving.step_times import Stepping, StepTimes


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
        self.grammars: GrammarCompiler | None = None
        """Compiles constraints; None without a tokenizer."""
        if tokenizer is not None and tokenizer.eos_ids:
            self.grammars = GrammarCompiler(
                tokenizer, runner.model.vocab_size, shares_cores=runner.shares_cores
            )
        self._config = config
        chips = runner.model.page_chips
        self._scheduler = Scheduler(
            _limits(config, runner),
            *(
                PagePool(config.num_pages(runner.max_model_len, chips), config.page_size)
                for _ in range(chips)
            ),
        )
        self._requests = RequestsInProgress()
        self._launcher = Launcher(runner, self._requests)
        self._speculator = Speculator(self._step_times(), config.draft_tokens)
        self._collector = Collector(self._requests.is_live, self)
        self._in_flight: LaunchedStep | None = None
        self._last_read = 0.0
        self._stepping: Stepping | None = None
        self._steps = 0

    def make_ready(self) -> None:
        """Prepare the runner; how prompts may be cut and shared depends on what it finds."""
        self.runner.make_ready()
        if self.grammars is not None:
            self.grammars.make_ready()
        self._scheduler.limits = _limits(self._config, self.runner)
        self._speculator.times = self._step_times()

    @property
    def vocab_size(self) -> int:
        """Token ids below this may be used; an imported model may have rows for no token."""
        size = self.runner.model.vocab_size
        return size if self.tokenizer is None else min(size, self.tokenizer.vocab_size)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return bool(self._requests) or self._in_flight is not None

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
        if request.constraint is not None and request.constraint.compiler is not self.grammars:
            raise RequestError(
                "constraint was compiled by another engine, for another vocabulary",
                param="constraint",
            )
        if request.avoid_ngrams and self.runner.ngram is None:
            raise RequestError(
                "avoid_ngrams=True needs a filter of n-grams, and this engine has none",
                param="avoid_ngrams",
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
        return self._requests.find(request_id)

    def abort(self, sequence: Sequence) -> None:
        """End a request at the next step's start; one that has ended is left alone.

        Takes no lock and wakes nobody, so that a finalizer may call it: while there is a request
        to abort, there are steps.
        """
        self._requests.abort(sequence)

    def step(self) -> Emitted:
        """Launch the next step, then take in what the step before gave every request.

        So the device computes while the host turns tokens into text. A request that turns out to
        have ended is in one step more, whose token for it is dropped. Drafts follow the newest
        token, so where they pay the step before is taken in first.
        """
        gained: Emitted = []
        reads_first = self._in_flight is not None and self._must_read(self._in_flight)
        if reads_first:
            gained += self._read("synchronous")
        with self.changed:
            ended = self._requests.end_due()
            for sequence, _ in ended:
                self._release(sequence)
            gained += ended
            plan = self._scheduler.plan()
            if reads_first:
                plan = self._scheduler.add_drafts(plan, self._speculator.choose(plan.decodes))
        launched = self._launcher.launch(plan)
        if self._in_flight is not None:
            gained += self._read("pipelined")
        if launched is None:
            self._stepping = None
        else:
            launched, failed = constrain(launched, self.runner, self.grammars)
            gained += self._end(failed)
        self._in_flight = launched
        with self.changed:
            self._steps += 1
            if not self._requests:
                self._check()
        return gained

    def learn(self, sequence: Sequence, token: int) -> None:
        """A request gains a token; `serving.collecting.Books`."""
        self._scheduler.add_token(sequence.request.request_id, token)
        self._speculator.observe(sequence, token)

    def settle(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """So much of a draft held; `serving.collecting.Books`."""
        self._scheduler.reject(sequence.request.request_id, drafted - accepted)
        self._speculator.drafted_total += drafted
        self._speculator.accepted_total += accepted

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
                drafted_tokens_total=self._speculator.drafted_total,
                accepted_tokens_total=self._speculator.accepted_total,
                prompt_tokens_total=self._requests.prompt_tokens_total,
                generated_tokens_total=self._collector.generated_total,
                finished_total=self._requests.finished_total,
                aborted_total=self._requests.aborted_total,
                steps_total=self._steps,
                compilations_total=self.runner.compilations,
                recompilations_after_ready=0,
                is_batch_invariant=self.runner.is_batch_invariant,
                is_chunk_invariant=self.runner.is_chunk_invariant,
            )

    def _enqueue(self, sequence: Sequence) -> None:
        request = sequence.request
        self._requests.check_new(request.request_id)
        if sequence.needs_steps:
            self._scheduler.add(
                request.request_id,
                prompt=request.prompt_token_ids,
                max_tokens=request.params.max_tokens,
                priority=request.priority,
                # Every prompt token that is to be scored must be computed.
                may_skip=self._config.use_prefix_cache and not sequence.wants_prompt_logprobs,
            )
        self._requests.add(sequence)

    def _release(self, sequence: Sequence) -> None:
        """Take back what a request that ended still has."""
        request_id = sequence.request.request_id
        if request_id in self._scheduler:
            self._scheduler.remove(request_id)
        self._launcher.close(request_id)
        self._speculator.forget(request_id)

    def _must_read(self, launched: LaunchedStep) -> bool:
        """Whether the next step's plan needs what a step gives."""
        if launched.has_drafts:
            return True
        return not launched.chunks and self._speculator.pays(
            each.request.request_id for each, _ in launched.decodes
        )

    def _read(self, stepping: Stepping) -> Emitted:
        """Take in the step that is under way."""
        finished, self._in_flight = self._in_flight, None
        assert finished is not None  # its callers looked
        generated = self._collector.generated_total
        gained = self._collector.collect(finished)
        generated = self._collector.generated_total - generated
        now = time.perf_counter()
        self._end(gained)
        with self.changed:
            # It was launched while the device still had the step before.
            elapsed = now - max(finished.started, self._last_read)
            self._scheduler.throughput.record(finished.prompt_tokens + generated, elapsed)
        if self._stepping == stepping and not finished.chunks:
            self._speculator.record(finished.rows, stepping, now - self._last_read)
        self._last_read, self._stepping = now, stepping
        return gained

    def _end(self, gained: Emitted) -> Emitted:
        """Let go of the requests that ended with what they gained, which is returned."""
        with self.changed:
            for sequence, delta in gained:
                if delta.finish_reason is not None:
                    self._requests.forget(sequence)
                    self._release(sequence)
        return gained

    def _step_times(self) -> StepTimes | None:
        """What steps take, where speculation may be tried."""
        return None if self._config.speculate == "off" else self.runner.step_times

    def _check(self) -> None:
        """Balance the books of an idle engine."""
        self._scheduler.check()
        open_slots = self._launcher.open_slots
        if len(self._scheduler) or open_slots:
            raise InvariantError(
                f"no request is in progress, but {len(self._scheduler)} are scheduled and the "
                f"slots {open_slots} are held"
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
