"""Reading a JSON body: bounded while it arrives, strict in encoding and grammar."""

from __future__ import annotations

import email.message
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import BodyTooLargeError, MediaTypeError
from api.strict_json import parse_json


class JsonRoute(APIRoute):
    """A route whose JSON body is read by `read_json` instead of FastAPI's own lenient parser.

    The limit is `app.state.max_body_bytes`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, behind the strict reader where the route has a body."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_and_handle(request: Request) -> Response:
            parsed = await read_json(request, request.app.state.max_body_bytes)
            return await handle(_ParsedRequest(request, parsed))

        return read_and_handle


class _ParsedRequest(Request):
    """A request whose body has been read and parsed."""

    def __init__(self, request: Request, parsed: Any) -> None:
        super().__init__(request.scope, request.receive, request._send)
        self._parsed = parsed

    async def body(self) -> bytes:
        """FastAPI only asks whether there is a body; there is."""
        return b"{}"

    async def json(self) -> Any:
        """What `read_json` returned."""
        return self._parsed


async def read_json(request: Request, max_bytes: int) -> Any:
    """The JSON value of the request's body.

    Raises:
        MediaTypeError: The content type is not JSON.
        BodyTooLargeError: The body is announced to be, or turns out to be, over `max_bytes`.
        InvalidJsonError: The body is empty, no UTF-8, no JSON, or has NaN, Infinity or a number
            that no double can hold.
    """
    _check_media_type(request.headers.get("content-type"))
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise BodyTooLargeError(_too_large(f"{announced} bytes", max_bytes))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLargeError(_too_large("over the limit", max_bytes))
    return parse_json(bytes(body))


def _check_media_type(header: str | None) -> None:
    message = email.message.Message()
    message["content-type"] = header or ""
    subtype = message.get_content_subtype()
    is_json = subtype == "json" or subtype.endswith("+json")
    if not header or message.get_content_maintype() != "application" or not is_json:
        raise MediaTypeError(
            f"content-type={header!r} is not supported; send 'content-type: application/json'"
        )


def _too_large(size: str, limit: int) -> str:
    return f"the request body of {size} exceeds the limit of {limit} bytes (max_body_bytes)"
