"""`POST /v1/completions`: OpenAI's completions, as JSON or as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.constraints import constraint_of
from api.http.body import JsonRoute
from api.http.disconnect import until_disconnect
from api.http.responses import json_errors
from api.http.schemas import CompletionRequest, CompletionResponse
from api.http.sse import ChunkWriter, EventStream, usage_block
from api.logprobs import LogprobsWriter
from api.service import Completion, CompletionCall, CompletionService, total_usage
from api.tokens import Prompt
from serving.errors import RequestError
from serving.request import GenerationOutput, SamplingParams, Usage

# Fields that mean the same to us as to the engine; null is the engine's default.
_SAMPLING_FIELDS = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "ignore_eos",
    "logprobs",
)


def completion_routes(service: CompletionService) -> APIRouter:
    """The route over `service`."""
    router = APIRouter(route_class=JsonRoute, tags=["completions"])

    @router.post(
        "/v1/completions",
        response_model=CompletionResponse,
        summary="Continue a prompt",
        responses={
            200: {
                "description": "The completion; with `stream`, its chunks as server-sent events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **json_errors(400, 404, 413, 415, 429, 503),
        },
    )
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """Continue one prompt or several; the official OpenAI clients work unchanged."""
        call = to_call(body)
        answer = _Answer(service, call)
        if not body.stream:
            return await until_disconnect(request.receive, answer.whole())
        options = body.stream_options
        events = answer.events(include_usage=bool(options and options.include_usage))
        # An error before the first event gets its own status instead of a broken stream.
        first = await until_disconnect(request.receive, anext(events))
        return EventStream([first], events)

    return router


def to_call(body: CompletionRequest) -> CompletionCall:
    """The service's call for a request body.

    Raises:
        RequestError: Two fields exclude each other, or one is out of the engine's range.
    """
    n = body.n or 1
    if body.stream and body.best_of is not None and body.best_of > n:
        raise RequestError(
            f"best_of={body.best_of} must equal n={n} in a stream: the best are known at the end",
            param="best_of",
        )
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options is only for stream=true", param="stream_options")
    return CompletionCall(
        model=body.model,
        prompts=_prompts(body.prompt),
        params=_sampling_params(body),
        n=n,
        best_of=body.best_of,
        echo=bool(body.echo),
        constraint=constraint_of(
            None
            if body.response_format is None
            else body.response_format.model_dump(by_alias=True),
            body.guided_regex,
        ),
    )


def _sampling_params(body: CompletionRequest) -> SamplingParams:
    given = {name: getattr(body, name) for name in _SAMPLING_FIELDS}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if body.top_k is not None:
        fields["top_k"] = max(0, body.top_k)
    if body.stop is not None:
        fields["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if body.stop_token_ids is not None:
        fields["stop_token_ids"] = tuple(body.stop_token_ids)
    if body.logit_bias is not None:
        fields["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
    if body.echo and body.logprobs is not None:
        fields["prompt_logprobs"] = body.logprobs
    return SamplingParams(**fields)


def _prompts(prompt: str | list[Any]) -> tuple[Prompt, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    return tuple(item if isinstance(item, str) else tuple(item) for item in prompt)


class _Answer:
    """One call's answer, in either of its two forms."""

    def __init__(self, service: CompletionService, call: CompletionCall) -> None:
        self._service = service
        self._call = call
        # Not the request id, which is the client's to choose and may come twice.
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._head = {
            "id": self._id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": call.model,
        }

    async def whole(self) -> Response:
        """The finished completion as JSON."""
        requests = await self._service.plan(self._call, self._id)
        completion = await self._service.complete(self._call, requests)
        body = {
            **self._head,
            "choices": self._choices(completion),
            "usage": usage_block(completion.usage),
        }
        return Response(json.dumps(body), media_type="application/json")

    async def events(self, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
        """The completion's chunks as server-sent events, without the final `[DONE]`."""
        requests = await self._service.plan(self._call, self._id)
        writer = ChunkWriter(self._head, choices=len(requests), include_usage=include_usage)
        logprobs = self._logprobs_writers(len(requests))
        usages: dict[int, Usage] = {}
        async with aclosing(self._service.stream(requests)) as stream:
            async for index, delta in stream:
                scored = (*(delta.prompt_logprobs or ()), *(delta.logprobs or ()))
                if delta.usage is not None:
                    usages[index] = delta.usage
                if delta.text or scored or delta.finish_reason is not None:
                    shown = logprobs[index].write(scored) if logprobs else None
                    yield writer.chunk(index, delta, shown)
        if include_usage:
            in_order = [usages[index] for index in sorted(usages)]
            yield writer.usage(total_usage(in_order, self._call.candidates))

    def _choices(self, completion: Completion) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "text": output.text,
                "logprobs": self._logprobs(output),
                "finish_reason": output.finish_reason,
                "stop_reason": output.stop_reason,
            }
            for index, output in enumerate(completion.choices)
        ]

    def _logprobs(self, output: GenerationOutput) -> dict[str, Any] | None:
        for writer in self._logprobs_writers(1):
            return writer.write((*(output.prompt_logprobs or ()), *(output.logprobs or ())))
        return None

    def _logprobs_writers(self, count: int) -> list[LogprobsWriter]:
        """One for each choice; none where no log-probabilities were asked for."""
        if self._call.params.logprobs is None:
            return []
        tokenizer = self._service.host.tokenizer
        return [LogprobsWriter(tokenizer, at_start=self._call.echo) for _ in range(count)]
