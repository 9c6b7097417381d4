"""What wraps every HTTP request: a request id, API keys, and the last line against exceptions.

Plain ASGI, since these see every chunk of every stream.
"""

from __future__ import annotations

import logging
import re
import uuid

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import AuthenticationError, reply_to
from api.keys import ApiKeys

_LOGGER = logging.getLogger("talipot.http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PROTECTED = ("/v1/", "/tokenize", "/detokenize")  # /tokenizer_info too


class RequestContext:
    """Gives each request an id, repeats it in the response, and answers 500 for a fault of ours.

    A client's own `x-request-id` is kept if it is short and plain; the id is in
    `request.state.request_id`.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        header = (b"x-request-id", request_id.encode("ascii"))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            _LOGGER.exception(
                "request %s failed: %s %s", request_id, scope["method"], scope["path"]
            )
            if started:
                raise
            reply = reply_to(error)
            response = JSONResponse(reply.to_dict(), reply.status, reply.headers)
            await response(scope, receive, send_with_id)


class RequireApiKey:
    """Refuses requests to the model's routes that carry no known key."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Wrap `app`."""
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not scope["path"].startswith(_PROTECTED):
            await self.app(scope, receive, send)
            return
        try:
            header = Headers(scope=scope).get("authorization", "")
            may_loosen = self.keys.check_authorization(header)
            scope.setdefault("state", {})["may_loosen_guards"] = may_loosen
        except AuthenticationError as error:
            reply = reply_to(error)
            response = JSONResponse(reply.to_dict(), reply.status, reply.headers)
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)
