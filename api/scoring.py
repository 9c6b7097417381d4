"""How likely given texts are: log-probabilities of their tokens, alone or after a prompt."""

from __future__ import annotations

import dataclasses
from contextlib import aclosing

from api.service import CompletionService
from api.streams import gather
from api.tokens import Prompt, Tokens
from serving.checks import check_integer
from serving.errors import RequestError
from serving.request import (
    MAX_LOGPROBS,
    GenerationRequest,
    SamplingParams,
    TokenLogprob,
    Usage,
    collect,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreItem:
    """A text, and what it continues; with no prompt its first token has no log-probability."""

    prompt: Prompt | None
    text: Prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreCall:
    """Texts to score in one go.

    Attributes:
        model: Name of the model.
        items: What to score, at least one.
        top_logprobs: Alternatives to report at each token.
        priority: Calls with a smaller number leave the queue first.
        deadline_s: Seconds from its arrival in which the call must be finished; None for no limit.

    Raises:
        RequestError: A field is out of range; `param` is its name.
    """

    model: str
    items: tuple[ScoreItem, ...]
    top_logprobs: int = 0
    priority: int = 0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        """Check what is ours; the engine's request checks the rest."""
        if not self.items:
            raise RequestError("items=() must hold at least 1 text to score", param="items")
        check_integer("top_logprobs", self.top_logprobs, minimum=0, maximum=MAX_LOGPROBS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """The scored tokens, with as many alternatives as were asked for.

    Attributes:
        tokens: Without the prompt's.
        is_greedy: Whether each is the most likely one at its place.
    """

    tokens: tuple[TokenLogprob, ...]
    is_greedy: bool

    @property
    def log_likelihood(self) -> float:
        """The sum of the tokens' log-probabilities."""
        return sum(token.logprob for token in self.tokens if token.logprob is not None)


async def score(
    service: CompletionService, call: ScoreCall, call_id: str
) -> tuple[tuple[Score, ...], Usage]:
    """Score every item of a call, in order; also what it used.

    Raises:
        RequestError: The call cannot be served; the message names field, value and limit.
        OverloadedError: The engine is full; nothing of the call goes on.
        TalipotError: The engine refused or failed; nothing of the call goes on.
    """
    service.check_model(call.model)
    service.check_items("items", len(call.items))
    _ = service.host.engine  # says why, when there is none
    # One alternative at least tells whether a token is the likeliest.
    params = SamplingParams(max_tokens=0, prompt_logprobs=max(1, call.top_logprobs))
    runs = []
    prompt_tokens = 0
    for index, item in enumerate(call.items):
        token_ids, start = await _tokens(service.tokens, item)
        prompt_tokens += len(token_ids)
        request = GenerationRequest(
            request_id=f"{call_id}-{index}",
            prompt_token_ids=token_ids,
            params=params,
            priority=call.priority,
            deadline_s=call.deadline_s,
        )
        runs.append(_score(service, request, start, call.top_logprobs))
    scores = await gather(runs)
    return tuple(scores), Usage(prompt_tokens=prompt_tokens, completion_tokens=0)


async def _score(
    service: CompletionService, request: GenerationRequest, start: int, top: int
) -> Score:
    async with aclosing(service.deltas(request)) as deltas:
        output = collect([delta async for delta in deltas])
    scored = (output.prompt_logprobs or ())[start:]
    return Score(
        tokens=tuple(dataclasses.replace(token, top=token.top[:top]) for token in scored),
        is_greedy=all(_is_likeliest(token) for token in scored),
    )


def _is_likeliest(token: TokenLogprob) -> bool:
    return token.logprob is None or token.logprob >= token.top[0][1]


async def _tokens(tokens: Tokens, item: ScoreItem) -> tuple[tuple[int, ...], int]:
    """The tokens of prompt and text together, and where scoring begins.

    Two texts are tokenized as one, as evaluation harnesses do: "wis" + "dom" is one word to the
    model. Where a token spans the border, all of it is scored.
    """
    if item.prompt is None:
        return await tokens.of_prompt(item.text), 0
    prompt = await tokens.of_prompt(item.prompt)
    if not isinstance(item.text, str):
        text = await tokens.of_prompt(item.text)
    elif isinstance(item.prompt, str) and item.prompt:
        whole = await tokens.of_prompt(item.prompt + item.text)
        return whole, _common_prefix(prompt, whole)
    else:
        text = tuple(await tokens.encode(item.text))
    return (*prompt, *text), len(prompt)


def _common_prefix(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many leading tokens both share."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
