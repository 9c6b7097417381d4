"""A text compared with the training data, for callers who bring their own."""

from __future__ import annotations

import dataclasses
from typing import Any

from api.service import CompletionService
from api.token_ends import TokenEnds, TokenLengths
from memorization.guard import near_dict, recited_tokens, span_dict


async def search_text(
    service: CompletionService, text: str, min_tokens: int | None
) -> dict[str, Any]:
    """What of a text stands in the training data, as JSON values; None for what no index tells.

    Raises:
        RequestError: The server has no index, or `min_tokens` is less than it is sure to find.
        UntracedError: The index does not answer.
    """
    guards = service.guards
    policy = dataclasses.replace(guards.memorization, action="annotate")
    if min_tokens is not None:
        policy = dataclasses.replace(policy, min_tokens=min_tokens)
    tracer = guards.require_index()
    has_runs = tracer.has_runs
    if has_runs:
        guards.require_tracer(policy)
    tokenizer = service.host.tokenizer
    tokens = await service.tokens.encode(text)
    spans, near = await tracer.trace(tokens, policy.min_tokens, text)
    follow = TokenEnds(TokenLengths(tokenizer), (), echo=False)
    ends = [0, *follow.extend(tokens)]
    return {
        "min_tokens": policy.min_tokens,
        "tokens": len(tokens),
        "recited_tokens": recited_tokens(spans) if has_runs else None,
        "spans": [
            {"start": ends[span.start], "end": ends[span.end], **span_dict(span)} for span in spans
        ]
        if has_runs
        else None,
        "near_duplicates": None if near is None else [near_dict(each) for each in near],
    }
