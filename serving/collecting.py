"""From what the device computed to what each request gained: tokens, text, logprobs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import Protocol

import numpy as np

from serving.avoidance import NO_TOKEN
from serving.launching import LaunchedStep
from serving.output import TokenLogprob
from serving.runner import HostLogprobs, Runner
from serving.sampler import Logprobs
from serving.sequence import NO_TOKEN_LEFT, Emitted, Sequence
from serving.step_plan import PromptChunk

logger = logging.getLogger(__name__)


class Books(Protocol):
    """Who is told what a step brought."""

    def learn(self, sequence: Sequence, token: int) -> None:
        """A request gains a token."""

    def settle(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Of a request's draft, so many tokens held."""


class Collector:
    """Waits for steps and gives their results to the requests that still want them.

    Attributes:
        generated_total: Tokens that were given to requests.
    """

    def __init__(self, is_live: Callable[[Sequence], bool], books: Books) -> None:
        """Results of requests that are not live are dropped."""
        self.generated_total = 0
        self._is_live = is_live
        self._books = books

    def collect(self, launched: LaunchedStep) -> Emitted:
        """What each request of a step gained, in the order of the step."""
        emitted: Emitted = []
        tokens: list[int] = []
        logprobs: HostLogprobs | None = None
        if launched.sampled is not None:
            tokens = np.asarray(launched.sampled.tokens).tolist()
            if any(each.request.params.logprobs is not None for each, _ in launched.decodes):
                logprobs = HostLogprobs.read(launched.sampled.logprobs)
        else:
            # Steps must not pile up on the device: aborts and deadlines act between them.
            Runner.wait(launched.chunks[-1][-1])
        for chunk, sequence, scored in launched.chunks:
            if self._is_live(sequence):
                _take_prompt_logprobs(chunk, sequence, scored)
                _end_if_scored(chunk, sequence, emitted)
        row = 0
        for sequence, draft in launched.decodes:
            if self._is_live(sequence):
                self._take_tokens(sequence, draft, tokens, logprobs, row, emitted)
            row += 1 + len(draft)
        return emitted

    def _take_tokens(
        self,
        sequence: Sequence,
        draft: tuple[int, ...],
        tokens: Rows[int],
        logprobs: HostLogprobs | None,
        row: int,
        emitted: Emitted,
    ) -> None:
        """Give a request the tokens from `row` on, as far as its draft holds and it goes on."""
        accepted = 0
        while not self._take_token(sequence, tokens[row], logprobs, row, emitted):
            if accepted == len(draft) or tokens[row] != draft[accepted]:
                break
            accepted += 1
            row += 1
        if draft:
            self._books.settle(sequence, len(draft), accepted)

    def _take_token(
        self,
        sequence: Sequence,
        token: int,
        logprobs: HostLogprobs | None,
        row: int,
        emitted: Emitted,
    ) -> bool:
        """Give a request a sampled token; whether that ended it."""
        if token == NO_TOKEN:
            emitted.append((sequence, sequence.finish("content_filter", NO_TOKEN_LEFT)))
            return True
        if token < 0:
            request_id = sequence.request.request_id
            logger.error("request %s: the logits are not finite", request_id)
            emitted.append((sequence, sequence.finish("error")))
            return True
        width = sequence.request.params.logprobs
        logprob = None
        if width is not None and logprobs is not None:
            logprob = _token_logprob(token, logprobs, row, width)
        self.generated_total += 1
        self._books.learn(sequence, token)
        delta = sequence.add_token(token, logprob)
        emitted.append((sequence, delta))
        return delta.finish_reason is not None


def _take_prompt_logprobs(chunk: PromptChunk, sequence: Sequence, scored: Logprobs) -> None:
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


def _end_if_scored(chunk: PromptChunk, sequence: Sequence, emitted: Emitted) -> None:
    """End a request that only wanted its prompt scored, at its last chunk."""
    request = sequence.request
    last = chunk.start + chunk.length == len(request.prompt_token_ids) - 1
    if last and not request.params.max_tokens:
        emitted.append((sequence, sequence.finish("length")))


def _token_logprob(token: int, logprobs: HostLogprobs, row: int, width: int) -> TokenLogprob:
    top_ids = logprobs.top_ids[row, :width].tolist()
    top = logprobs.top[row, :width].tolist()
    return TokenLogprob(
        token_id=token,
        logprob=float(logprobs.chosen[row]),
        top=tuple(zip(top_ids, top, strict=True)),
    )
