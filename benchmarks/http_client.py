"""A client for load: one completion a connection, read with as little work as Python allows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back for one request.

    Attributes:
        status: The HTTP status; 0 if the connection broke before one came.
        ttft_s: Seconds to the first event; None if there was none.
        total_s: Seconds to the end.
        tokens: Completion tokens as the server counts them; 0 if it did not say.
        is_whole: Whether the body came to its proper end.
        retry_after: The header's value, if it was sent.
    """

    status: int
    ttft_s: float | None
    total_s: float
    tokens: int
    is_whole: bool
    retry_after: str | None

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds between tokens after the first."""
        if self.ttft_s is None or self.tokens < 2:
            return None
        return (self.total_s - self.ttft_s) / (self.tokens - 1)


async def complete(
    port: int, body: dict[str, Any], *, leave_after_s: float | None = None
) -> Answer | None:
    """POST `body` to /v1/completions of 127.0.0.1:`port`; None if it left after `leave_after_s`."""
    payload = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"connection: close\r\ncontent-length: {len(payload)}\r\n\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + payload)
        async with asyncio.timeout(leave_after_s):
            return await _read(reader, began)
    except TimeoutError:
        return None
    except ConnectionError:
        return Answer(0, None, time.perf_counter() - began, 0, is_whole=False, retry_after=None)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, began: float) -> Answer:
    received = bytearray()
    ttft_s = None
    while chunk := await reader.read(65536):
        received += chunk
        if ttft_s is None and b"data: " in received:
            ttft_s = time.perf_counter() - began
        if received.endswith(b"0\r\n\r\n"):
            break
    total_s = time.perf_counter() - began
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    if not head:
        return Answer(0, None, total_s, 0, is_whole=False, retry_after=None)
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    length = fields.get("content-length")
    is_whole = body.endswith(b"0\r\n\r\n") if length is None else len(body) == int(length)
    status = int(head.split(b" ", 2)[1])
    return Answer(status, ttft_s, total_s, _tokens(body), is_whole, fields.get("retry-after"))


def _tokens(body: bytes) -> int:
    start = body.rfind(b'"completion_tokens":')
    if start < 0:
        return 0
    digits = body[start + 20 :].lstrip()
    count = 0
    while digits[count : count + 1].isdigit():
        count += 1
    return int(digits[:count])
