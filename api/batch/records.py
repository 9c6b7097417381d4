"""What a line of the output says of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from api.grpc.guards import report_dicts
from api.grpc.talipot.v1 import generation_pb2 as pb

_FINISH_REASONS = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def to_record(response: pb.GenerateBatchResponse, request: pb.GenerateRequest) -> dict[str, Any]:
    """The JSON object for an answer.

    The fields of the first choice stand in the record itself; a request for several has them all in
    `choices` as well.
    """
    if response.HasField("error"):
        error: dict[str, Any] = {"code": response.error.code, "message": response.error.message}
        if response.error.field:
            error["field"] = response.error.field
        return {"id": response.id, "error": error}
    result = response.result
    choices = [_choice(choice, request.params) for choice in result.choices]
    record = {
        "id": response.id,
        **choices[0],
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
            "total_tokens": result.usage.prompt_tokens + result.usage.completion_tokens,
        },
        "model": result.model,
    }
    if len(choices) > 1:
        record["choices"] = choices
    return record


def _choice(choice: pb.Choice, params: pb.SamplingParams) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": choice.text,
        "finish_reason": _FINISH_REASONS[choice.finish_reason],
    }
    reason = choice.WhichOneof("stop_reason")
    if reason is not None:
        record["stop_reason"] = getattr(choice, reason)
    if params.HasField("logprobs"):
        record["logprobs"] = _logprobs(choice.logprobs)
    if params.HasField("prompt_logprobs"):
        record["prompt_logprobs"] = _logprobs(choice.prompt_logprobs)
    return record | report_dicts(choice)


def _logprobs(tokens: Iterable[pb.TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {
            "token_id": token.token_id,
            "text": token.text,
            "logprob": token.logprob if token.HasField("logprob") else None,
            "top": [
                {"token_id": other.token_id, "text": other.text, "logprob": other.logprob}
                for other in token.top
            ],
        }
        for token in tokens
    ]
