"""Server-sent events of a completion, built by hand: one costs microseconds, and all else waits.

The bytes around a chunk's text are prepared once for a stream; only the text goes through the JSON
encoder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.errors import reply_to
from api.http.disconnect import until_disconnect
from model.errors import TalipotError
from serving.request import Delta, Usage

_LOGGER = logging.getLogger("talipot.http")
DONE = b"data: [DONE]\n\n"

_encode_string = json.encoder.encode_basestring_ascii


class ChunkWriter:
    """Writes the chunks of one completion stream."""

    def __init__(self, head: dict[str, Any], *, choices: int, include_usage: bool) -> None:
        """`head` holds id, object, created and model, which every chunk repeats."""
        opening = json.dumps(head, separators=(",", ":"))[:-1]
        usage = ',"usage":null' if include_usage else ""
        self._head = opening
        self._openings = [
            f'data: {opening},"choices":[{{"index":{index},"text":' for index in range(choices)
        ]
        self._ending = f"}}]{usage}}}\n\n"
        self._plain_ending = (
            f',"logprobs":null,"finish_reason":null,"stop_reason":null{self._ending}'
        )

    def chunk(self, index: int, delta: Delta, logprobs: dict[str, Any] | None) -> bytes:
        """The event for a choice's delta."""
        start = self._openings[index] + _encode_string(delta.text)
        if logprobs is None and delta.finish_reason is None:
            return (start + self._plain_ending).encode("ascii")
        return (
            f'{start},"logprobs":{json.dumps(logprobs)},'
            f'"finish_reason":{json.dumps(delta.finish_reason)},'
            f'"stop_reason":{json.dumps(delta.stop_reason)}{_reports(delta)}{self._ending}'
        ).encode("ascii")

    def usage(self, usage: Usage) -> bytes:
        """The event after the last chunk when usage was asked for."""
        body = json.dumps(usage_block(usage), separators=(",", ":"))
        return f'data: {self._head},"choices":[],"usage":{body}}}\n\n'.encode("ascii")


def _reports(delta: Delta) -> str:
    """What guards found, as further fields of the choice."""
    return "".join(
        f",{json.dumps(name)}:{json.dumps(report)}"
        for name, report in (delta.reports or {}).items()
    )


def usage_block(usage: Usage) -> dict[str, int]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_event(error: BaseException) -> bytes:
    """What a client is told about an error after the stream has begun."""
    return b"data: " + json.dumps(reply_to(error).to_dict()).encode("ascii") + b"\n\n"


class EventStream(Response):
    """A response whose body is sent event by event, and whose source is closed with the client."""

    media_type = "text/event-stream"

    def __init__(self, first: Sequence[bytes], rest: AsyncGenerator[bytes, None]) -> None:
        """Send `first`, which is there already, then what `rest` yields."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as an ASGI response."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        try:
            await until_disconnect(receive, self._send_events(send))
        except ClientDisconnect:
            _LOGGER.debug("client left a stream")

    async def _send_events(self, send: Send) -> None:
        try:
            await _send_body(send, b"".join(self._first))
            async with aclosing(self._rest) as events:
                async for event in events:
                    await _send_body(send, event)
        except TalipotError as error:
            await _send_body(send, error_event(error))
        except Exception as error:
            _LOGGER.exception("a stream failed")
            await _send_body(send, error_event(error))
        await send({"type": "http.response.body", "body": DONE, "more_body": False})


async def _send_body(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
