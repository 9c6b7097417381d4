"""What every door does with a completion: check, tokenize, expand choices, run, collect.

Knows nothing of HTTP: a call comes in as `CompletionCall`, and results, deltas and typed errors
go out.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from api.errors import DeadlineError, ShuttingDownError
from api.gate import Gate
from api.guard_fields import GuardFields
from api.guards import Guards
from api.host import EngineHost
from api.metrics import Outcome, ServingMetrics
from api.outputs.writer import OutputWriter
from api.recording import to_record
from api.side_metrics import SideCollector
from api.streams import gather, merge
from api.tokens import Prompt, Tokens
from model.errors import TalipotError
from serving.checks import show
from serving.constraint import Constraint
from serving.errors import (
    EngineCrashedError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)
from serving.request import (
    Delta,
    GenerationOutput,
    GenerationRequest,
    SamplingParams,
    Usage,
    collect,
)
from serving.sequence import CONSTRAINT
from serving.stream import RequestStream

_ABORTED_RETRY_AFTER_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionCall:
    """A completion as a caller asks for it.

    Attributes:
        model: Name of the model.
        prompts: Texts or token ids, at least one.
        params: How to sample, the same for each prompt.
        n: Choices for each prompt.
        best_of: Choices generated for each prompt, of which the best n are returned; None is n.
        echo: Whether the text begins with the prompt.
        priority: Calls with a smaller number leave the queue first.
        deadline_s: Seconds from its arrival in which the call must be finished; None for no limit.
        constraint: What every generated text must be; None for anything.
        guards: What it asks of the guards.

    Raises:
        RequestError: `best_of` is below `n`.
    """

    model: str
    prompts: tuple[Prompt, ...]
    params: SamplingParams
    n: int = 1
    best_of: int | None = None
    echo: bool = False
    priority: int = 0
    deadline_s: float | None = None
    constraint: Constraint | None = None
    guards: GuardFields = dataclasses.field(default_factory=GuardFields)

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if self.best_of is not None and self.best_of < self.n:
            raise RequestError(
                f"best_of={self.best_of} must be at least n={self.n}", param="best_of"
            )

    @property
    def candidates(self) -> int:
        """Choices generated for each prompt."""
        return self.n if self.best_of is None else self.best_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished call: its choices, prompt by prompt, and what all candidates used."""

    choices: tuple[GenerationOutput, ...]
    usage: Usage


class CompletionService:
    """Runs completions on the host's engine."""

    def __init__(
        self,
        host: EngineHost,
        metrics: ServingMetrics,
        guards: Guards,
        outputs: OutputWriter | None = None,
        *,
        max_choices: int,
    ) -> None:
        """Admit at most `max_choices` candidates (prompts x best_of) in one call.

        Finished generations go to `outputs`, if there are any.
        """
        self.host = host
        self.metrics = metrics
        self.guards = guards
        self.outputs = outputs
        metrics.registry.register(SideCollector(guards, outputs))
        self.tokens = Tokens(host)
        self.max_choices = max_choices

    def close(self) -> None:
        """End what the service has beside the engine; what is still to be logged is, briefly."""
        self.guards.close()
        if self.outputs is not None:
            self.outputs.close()

    def check_model(self, name: str | None) -> None:
        """Accept the served model's name; None is the served model.

        Raises:
            UnknownModelError: It is another name.
        """
        if name is not None and name != self.host.model_name:
            raise UnknownModelError(
                f"model={show(name)} is not served here; served: {self.host.model_name!r}",
                param="model",
            )

    def check_items(self, field: str, count: int) -> None:
        """Accept as many texts in one call as it may have choices.

        Raises:
            RequestError: There are more; `param` is `field`.
        """
        if count > self.max_choices:
            raise RequestError(
                f"{field} has {count} texts; at most {self.max_choices} are accepted (max_choices)",
                param=field,
            )

    async def plan(self, call: CompletionCall, call_id: str) -> tuple[GenerationRequest, ...]:
        """The engine's requests for a call: for each prompt its candidates, in order.

        Raises:
            RequestError: The call cannot be served; the message names field, value and limit.
            NotReadyError: There is no engine to serve it now.
        """
        self.check_model(call.model)
        _ = self.host.engine  # says why, when there is none
        self.guards.check(call.guards, call.params)
        total = len(call.prompts) * call.candidates
        if total > self.max_choices:
            raise RequestError(
                f"the call asks for {total} choices ({len(call.prompts)} prompts x "
                f"{call.candidates}); at most {self.max_choices} are accepted (max_choices)",
                param="n" if call.candidates > 1 else "prompt",
            )
        if call.params.max_tokens == 0 and not call.echo:
            raise RequestError("max_tokens=0 must be at least 1 without echo", param="max_tokens")
        grammar = None
        if call.constraint is not None:
            grammar = await self.host.engine.compile(call.constraint)
        avoids = self.guards.avoids(call.guards)
        requests = []
        for row, prompt in enumerate(call.prompts):
            token_ids = await self.tokens.of_prompt(prompt)
            for candidate in range(call.candidates):
                index = row * call.candidates + candidate
                requests.append(
                    GenerationRequest(
                        request_id=f"{call_id}-{index}",
                        prompt_token_ids=token_ids,
                        params=_for_candidate(call, candidate),
                        echo=call.echo,
                        priority=call.priority,
                        deadline_s=call.deadline_s,
                        constraint=grammar,
                        avoid_ngrams=avoids,
                    )
                )
        return tuple(requests)

    async def complete(
        self, call: CompletionCall, requests: Sequence[GenerationRequest]
    ) -> Completion:
        """Run a planned call to its end.

        Raises:
            OverloadedError: The engine is full; nothing of the call goes on.
            DeadlineError: The call's deadline passed; nothing of it goes on.
            TalipotError: The engine refused or failed; nothing of the call goes on.
        """
        tokenizer = self.host.tokenizer  # now: while the server drains there is none to ask for
        outputs = await gather([self._collect(call, request) for request in requests])
        per_prompt = call.candidates
        usage = total_usage([output.usage for output in outputs], per_prompt)
        choices: list[GenerationOutput] = []
        for start in range(0, len(outputs), per_prompt):
            candidates = outputs[start : start + per_prompt]
            if per_prompt > call.n:
                candidates = sorted(candidates, key=_mean_logprob, reverse=True)[: call.n]
            choices.extend(candidates)
        if self.outputs is not None:
            for index, output in enumerate(choices):
                request = requests[index // call.n * per_prompt]
                self.outputs.put(to_record(call, request, index, output, tokenizer))
        return Completion(choices=tuple(choices), usage=usage)

    def stream(
        self, call: CompletionCall, requests: Sequence[GenerationRequest]
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        """Run a planned call; yields (index of the request, delta) as they come.

        Raises while iterating what `complete` raises. Close the iterator to abort what still runs.
        """
        if len(requests) == 1:
            return self._numbered(self._recorded(call, requests[0], 0))
        return merge(
            [self._recorded(call, request, index) for index, request in enumerate(requests)]
        )

    def guarded(
        self, call: CompletionCall, request: GenerationRequest, *, as_whole: bool = False
    ) -> AsyncGenerator[Delta, None]:
        """One request's deltas as far as the guards let them."""
        gate = self.guards.gate(call.guards, request, self.host.tokenizer)
        return self.deltas(request, gate, as_whole=as_whole)

    async def deltas(
        self, request: GenerationRequest, gate: Gate | None = None, *, as_whole: bool = False
    ) -> AsyncGenerator[Delta, None]:
        """One request's deltas, measured; an abort by the engine becomes an error.

        With `as_whole` they may come together; a gate gets them as they are, to stop in time.
        """
        timer = self.metrics.watch()
        outcome: Outcome = "cancelled"
        tokens = 0
        try:
            engine = self.host.engine
            source: AsyncGenerator[Delta, None] | RequestStream
            if gate is None:
                source = engine.generate(request, as_whole=as_whole)
            else:
                source = gate.deltas(lambda: engine.generate(request))
            async with aclosing(source) as deltas:
                async for delta in deltas:
                    if delta.token_ids:
                        timer.token_arrived()
                        tokens += len(delta.token_ids)
                    if delta.finish_reason is not None:
                        _raise_unfinished(delta)
                        outcome = _outcome(delta)
                        self.guards.verdicts.count(delta.reports)
                    yield delta
        except OverloadedError:
            outcome = "rejected"
            raise
        except RequestError:
            outcome = "invalid"
            raise
        except DeadlineError:
            raise  # as if the caller had cancelled it at that moment
        except TalipotError:
            outcome = "error"
            raise
        finally:
            timer.finish(outcome, tokens)

    async def _collect(self, call: CompletionCall, request: GenerationRequest) -> GenerationOutput:
        async with aclosing(self.guarded(call, request, as_whole=True)) as deltas:
            return collect([delta async for delta in deltas])

    async def _recorded(
        self, call: CompletionCall, request: GenerationRequest, index: int
    ) -> AsyncGenerator[Delta, None]:
        """A choice's deltas; when it is finished it goes to the output log."""
        passed: list[Delta] = []
        tokenizer = self.host.tokenizer  # now: while the server drains there is none to ask for
        async with aclosing(self.guarded(call, request)) as deltas:
            async for delta in deltas:
                passed.append(delta)
                if delta.finish_reason is not None and self.outputs is not None:
                    output = collect(passed)
                    self.outputs.put(to_record(call, request, index, output, tokenizer))
                yield delta

    async def _numbered(
        self, deltas: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        async with aclosing(deltas):
            async for delta in deltas:
                yield 0, delta


def derived_seed(seed: int, candidate: int) -> int:
    """The seed of a prompt's candidate; the first has the caller's own."""
    if candidate == 0:
        return seed
    bits = seed % 2**64  # what the sampler takes of it, so -1 and 2**64 - 1 are the same here too
    digest = hashlib.blake2b(f"{bits}:{candidate}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def total_usage(usages: Sequence[Usage], candidates: int) -> Usage:
    """Sum over requests, counting the prompt that `candidates` share once."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages[::candidates]),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )


def _for_candidate(call: CompletionCall, candidate: int) -> SamplingParams:
    params = call.params
    if call.candidates > call.n and params.logprobs is None:
        params = dataclasses.replace(params, logprobs=0)  # what the best are chosen by
    if params.seed is None or candidate == 0:
        return params
    return dataclasses.replace(params, seed=derived_seed(params.seed, candidate))


def _mean_logprob(output: GenerationOutput) -> float:
    values = [token.logprob for token in output.logprobs or () if token.logprob is not None]
    return sum(values) / len(values) if values else float("-inf")


def _outcome(delta: Delta) -> Outcome:
    if delta.finish_reason in ("length", "content_filter"):
        return delta.finish_reason
    return "stop"


def _raise_unfinished(delta: Delta) -> None:
    if delta.finish_reason == "abort" and delta.stop_reason == "deadline":
        raise DeadlineError("the request's deadline passed before it was finished")
    if delta.finish_reason == "abort":
        raise ShuttingDownError(
            "the server is stopping and ended this request before it was finished",
            retry_after_s=_ABORTED_RETRY_AFTER_S,
        )
    if delta.finish_reason == "error" and delta.stop_reason == CONSTRAINT:
        raise RequestError(
            "the schema or regular expression became too complex to follow in this text"
        )
    if delta.finish_reason == "error":
        raise EngineCrashedError("the engine failed while it ran this request")
