"""What a caller asks of the engine, checked when it is built."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING

from serving.checks import check_boolean, check_integer, check_number, check_token_ids, show
from serving.errors import RequestError
from serving.output import Delta, FinishReason, GenerationOutput, TokenLogprob, Usage, collect

if TYPE_CHECKING:
    from serving.grammar import Grammar

__all__ = [
    "MAX_LOGPROBS",
    "Delta",
    "FinishReason",
    "GenerationOutput",
    "GenerationRequest",
    "SamplingParams",
    "TokenLogprob",
    "Usage",
    "collect",
]

MAX_LOGPROBS = 20
"""Alternatives that can be asked for at each token."""
MAX_STOP_STRINGS = 64
MAX_STOP_STRING_CHARACTERS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    The order of application: repetition, frequency and presence penalty on the model's logits,
    then `logit_bias`, then the mask of `min_tokens`; greedy takes the argmax of that. Otherwise
    divide by `temperature`, keep `top_k`, of those `top_p`, of those `min_p`, and draw.

    Attributes:
        max_tokens: Most tokens to generate; 0 generates nothing (scoring with prompt logprobs).
        min_tokens: End-of-document and stop tokens are not sampled, and stop strings not looked
            for, in what is generated before this many tokens.
        temperature: 0 is greedy (so is anything below 1e-5).
        top_k: Keep the k most likely tokens, and those that tie with the k-th; 0 is off.
        top_p: Keep the smallest set of most likely tokens with at least this probability.
        min_p: Keep tokens at least this fraction as likely as the most likely one.
        presence_penalty: Subtracted from the logit of every token generated so far.
        frequency_penalty: Subtracted once for each time the token was generated.
        repetition_penalty: Divides positive logits and multiplies negative ones of every token in
            the prompt or generated so far (CTRL, arXiv 1909.05858); 1 is off.
        logit_bias: Added to the logits of these token ids, -100 to 100.
        seed: Same seed, prompt and parameters: same tokens. None draws one.
        stop: Strings that end the generation; not part of the text.
        stop_token_ids: Tokens that end the generation; not part of the text.
        ignore_eos: Do not stop at the model's end-of-document token.
        logprobs: Report each token's logprob with this many alternatives, 0 to 20.
        prompt_logprobs: The same for the prompt's tokens.

    Raises:
        RequestError: A field is out of range; `param` is its name.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        """Check every field and freeze the bias."""
        check_integer("max_tokens", self.max_tokens, minimum=0)
        check_integer("min_tokens", self.min_tokens, minimum=0)
        if self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens={self.min_tokens} must be at most max_tokens={self.max_tokens}",
                param="min_tokens",
            )
        check_number("temperature", self.temperature, minimum=0)
        check_integer("top_k", self.top_k, minimum=0)
        check_number("top_p", self.top_p, minimum=0, maximum=1)
        check_number("min_p", self.min_p, minimum=0, maximum=1)
        check_number("presence_penalty", self.presence_penalty, minimum=-2, maximum=2)
        check_number("frequency_penalty", self.frequency_penalty, minimum=-2, maximum=2)
        check_number("repetition_penalty", self.repetition_penalty, minimum=0.01, maximum=100)
        if self.seed is not None:
            check_integer("seed", self.seed, minimum=-(2**63), maximum=2**64 - 1)
        check_boolean("ignore_eos", self.ignore_eos)
        check_token_ids("stop_token_ids", self.stop_token_ids)
        for field in ("logprobs", "prompt_logprobs"):
            if getattr(self, field) is not None:
                check_integer(field, getattr(self, field), minimum=0, maximum=MAX_LOGPROBS)
        _check_stop(self.stop)
        _check_logit_bias(self.logit_bias)
        object.__setattr__(self, "logit_bias", types.MappingProxyType(dict(self.logit_bias)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One prompt to continue.

    Attributes:
        request_id: Unique among the requests that the engine holds.
        prompt_token_ids: The prompt, at least one token.
        params: How to continue it.
        echo: Put the prompt's text before the generated text.
        priority: Requests with a smaller number leave the queue first; equal ones in order of
            arrival.
        deadline_s: End the request with what it has this many seconds after it arrived.
        constraint: The grammar that the generated text must keep to, from `Engine.compile`; None
            for any text. Where the text can only end the request finishes with "stop".
        avoid_ngrams: Never generate a token that ends one of the engine's forbidden n-grams, be it
            begun in the prompt; see `serving.avoidance`.

    Raises:
        RequestError: A field is out of range; `param` is its name.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams = dataclasses.field(default_factory=SamplingParams)
    echo: bool = False
    priority: int = 0
    deadline_s: float | None = None
    constraint: Grammar | None = None
    avoid_ngrams: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.request_id, str) or not self.request_id:
            raise RequestError(
                f"request_id={show(self.request_id)} must be a non-empty string",
                param="request_id",
            )
        check_token_ids("prompt_token_ids", self.prompt_token_ids)
        if not self.prompt_token_ids:
            raise RequestError(
                "prompt_token_ids=() must hold at least 1 token", param="prompt_token_ids"
            )
        check_boolean("echo", self.echo)
        check_boolean("avoid_ngrams", self.avoid_ngrams)
        check_integer("priority", self.priority, minimum=-(2**31), maximum=2**31 - 1)
        if self.deadline_s is not None:
            check_number("deadline_s", self.deadline_s, minimum=0)


def _check_stop(stop: tuple[str, ...]) -> None:
    if not isinstance(stop, tuple):
        raise RequestError(f"stop={show(stop)} must be a tuple of strings", param="stop")
    if len(stop) > MAX_STOP_STRINGS:
        raise RequestError(
            f"stop has {len(stop)} strings; at most {MAX_STOP_STRINGS} are allowed", param="stop"
        )
    for index, text in enumerate(stop):
        if not isinstance(text, str) or not text:
            raise RequestError(
                f"stop[{index}]={show(text)} must be a non-empty string", param="stop"
            )
        if len(text) > MAX_STOP_STRING_CHARACTERS:
            raise RequestError(
                f"stop[{index}] has {len(text)} characters; at most "
                f"{MAX_STOP_STRING_CHARACTERS} are allowed",
                param="stop",
            )


def _check_logit_bias(bias: Mapping[int, float]) -> None:
    if not isinstance(bias, Mapping):
        raise RequestError(
            f"logit_bias={show(bias)} must map token ids to numbers", param="logit_bias"
        )
    for token_id, value in bias.items():
        if type(token_id) is not int or token_id < 0:
            raise RequestError(
                f"logit_bias has the key {show(token_id)}; token ids are integers of at least 0",
                param="logit_bias",
            )
        try:
            check_number(f"logit_bias[{token_id}]", value, minimum=-100, maximum=100)
        except RequestError as error:
            raise RequestError(str(error), param="logit_bias") from None
