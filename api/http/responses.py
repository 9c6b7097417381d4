"""The OpenAPI description of our errors."""

from __future__ import annotations

from typing import Any

from api.http.schemas import ErrorResponse

_DESCRIPTIONS = {
    400: "The request cannot be served as asked; the message names field, value and limit.",
    404: "No such model or route.",
    413: "The request body is too large.",
    415: "The request body is not declared as JSON.",
    429: "Overloaded; `Retry-After` says when to try again.",
    503: "Loading or stopping; `Retry-After` says when to try again.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def json_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` entries of a route for these error statuses."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        responses[status] = {"model": ErrorResponse, "description": _DESCRIPTIONS[status]}
        if status in (429, 503):
            responses[status]["headers"] = _RETRY_AFTER
    return responses
