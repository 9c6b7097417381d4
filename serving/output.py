"""What the engine gives back: deltas while it generates, one output when they are collected."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "abort", "error"]
"""Why a request ended: a stop token or string, `max_tokens`, a guard or because every next token is
forbidden, an abort or deadline, a fault.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token's log-probability under the model's own distribution (before any penalty).

    Attributes:
        token_id: The token.
        logprob: Natural logarithm of its probability; None for the first token of a prompt.
        top: The most likely tokens at this place with their log-probabilities, best first.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one request; a token that stopped it counts as a completion token."""

    prompt_tokens: int
    completion_tokens: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a request gained since the delta before.

    Attributes:
        text: New text: whole characters only, nothing that may become a stop string. With `echo`
            the first delta's text begins with the prompt's.
        token_ids: New generated tokens (never the prompt's), a stop token included. Text lags
            behind tokens while it is held back.
        logprobs: One for each of `token_ids` if the request asked for logprobs, else None.
        prompt_logprobs: On the first delta, if asked for: one for each prompt token.
        finish_reason: On the last delta: why it ended.
        stop_reason: The stop string or stop token id that ended it; None for the model's own
            end-of-document token. "deadline" if the deadline passed; the guard's name if one
            ended it, "no_token" if every next token would have ended a forbidden n-gram.
        usage: On the last delta.
        reports: On the last delta: what guards found, by their names; None without guards.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    usage: Usage | None = None
    reports: Mapping[str, dict[str, Any]] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOutput:
    """A whole generation; the fields are those of `Delta`, joined."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    prompt_logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    usage: Usage
    reports: Mapping[str, dict[str, Any]] | None = None


def join(deltas: Iterable[Delta]) -> Delta:
    """One delta that says the same as several consecutive ones."""
    texts: list[str] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    has_logprobs = False
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    last = Delta()
    for last in deltas:
        texts.append(last.text)
        token_ids.extend(last.token_ids)
        if last.logprobs is not None:
            has_logprobs = True
            logprobs.extend(last.logprobs)
        if last.prompt_logprobs is not None:
            prompt_logprobs = last.prompt_logprobs
    return Delta(
        text="".join(texts),
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs) if has_logprobs else None,
        prompt_logprobs=prompt_logprobs,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        usage=last.usage,
        reports=last.reports,
    )


def collect(deltas: Iterable[Delta]) -> GenerationOutput:
    """Join all deltas of one finished request.

    Raises:
        ValueError: The last delta has no finish reason, so the request had not ended.
    """
    whole = join(deltas)
    if whole.finish_reason is None or whole.usage is None:
        raise ValueError("the deltas do not end with a finish reason and usage")
    return GenerationOutput(
        text=whole.text,
        token_ids=whole.token_ids,
        logprobs=whole.logprobs,
        prompt_logprobs=whole.prompt_logprobs,
        finish_reason=whole.finish_reason,
        stop_reason=whole.stop_reason,
        usage=whole.usage,
        reports=whole.reports,
    )
