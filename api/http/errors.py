"""Every error of the HTTP door in OpenAI's shape, `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.errors import ErrorReply, reply_to
from model.errors import TalipotError
from serving.checks import show

# nginx's code for it; nobody is left to read the response, but logs and metrics show it.
CLIENT_CLOSED_REQUEST = 499
_MAX_PROBLEMS_SHOWN = 5
_OBJECTS = ("safety", "memorization")  # fields whose own fields have names


def install(app: FastAPI) -> None:
    """Register the handlers of every kind of exception that a route may raise."""
    app.add_exception_handler(TalipotError, _on_talipot_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def to_response(reply: ErrorReply, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The HTTP response of an error."""
    return JSONResponse(reply.to_dict(), reply.status, {**reply.headers, **(headers or {})})


def describe(problems: Sequence[Mapping[str, Any]]) -> ErrorReply:
    """One reply for pydantic's list of problems: names the fields, their values and limits."""
    shown = [_problem(problem) for problem in problems[:_MAX_PROBLEMS_SHOWN]]
    hidden = len(problems) - len(shown)
    fields = [problem["loc"][1] for problem in problems if len(problem["loc"]) > 1]
    return ErrorReply(
        status=HTTPStatus.BAD_REQUEST,
        message="; ".join(shown) + (f"; and {hidden} more" if hidden else ""),
        type="invalid_request_error",
        param=str(fields[0]) if fields else None,
        code="invalid_request",
    )


def _problem(problem: Mapping[str, Any]) -> str:
    _, *path = problem["loc"]
    kind, text = problem["type"], str(problem["msg"])
    if not path:
        return "the request body must be a JSON object"
    field = _spelled(path)
    if kind == "missing":
        return f"{field} is required"
    if kind == "extra_forbidden":
        return f"{field} is not a field of this request"
    if kind == "prompt_item":
        return text
    text = text.replace("Input should be", "must be").replace("Input should", "must")
    return f"{field}={show(problem['input'])} {text}"


def _spelled(path: Sequence[object]) -> str:
    """A field as the doors' own checks spell it: safety.labels[0], but logit_bias[5]."""
    separated = "".join(
        f".{part}" if path[0] in _OBJECTS and isinstance(part, str) else f"[{part}]"
        for part in path[1:]
    )
    return f"{path[0]}{separated}"


async def _on_talipot_error(_: Request, error: Exception) -> Response:
    reply = reply_to(error)
    if reply.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error  # logged with its traceback, and answered, by `RequestContext`
    return to_response(reply)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return to_response(describe(error.errors()))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    route = f"{request.method} {request.url.path}"
    message, code = str(error.detail), None
    if error.status_code == HTTPStatus.NOT_FOUND:
        message, code = f"there is no {route}; see /docs", "not_found"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message, code = f"{route} is not allowed", "method_not_allowed"
    reply = ErrorReply(
        status=error.status_code, message=message, type="invalid_request_error", code=code
    )
    return to_response(reply, error.headers)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
