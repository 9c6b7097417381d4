"""JSON by its standard's letter: UTF-8, no NaN or Infinity, no number beyond what can be held."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from api.errors import InvalidJsonError

# Enough to name a value in an error message without echoing a book.
_SHOWN_CHARS = 40


def parse_json(body: bytes, subject: str = "the request body") -> Any:
    """The value that `body` holds; `subject` is what an error message calls it.

    Raises:
        InvalidJsonError: The bytes are anything but strict JSON; the message says what and where.
    """
    try:
        return _parse(body)
    except InvalidJsonError as error:
        raise InvalidJsonError(f"{subject} {error}") from None


def _parse(body: bytes) -> Any:
    if not body:
        raise InvalidJsonError("is empty; expected a JSON object")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = body[error.start]
        raise InvalidJsonError(f"is not UTF-8: byte 0x{byte:02x} at offset {error.start}") from None
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidJsonError("is not accepted: nested too deeply") from None


def _refuse(literal: str) -> NoReturn:
    raise InvalidJsonError(f"has the value {literal}, which is not JSON")


def _float(literal: str) -> float:
    value = float(literal)
    if value in (float("inf"), float("-inf")):
        raise InvalidJsonError(f"has the number {literal[:_SHOWN_CHARS]}, beyond double range")
    return value


def _int(literal: str) -> int:
    try:
        return int(literal)
    except ValueError:  # Python refuses to parse integers of thousands of digits
        raise InvalidJsonError(
            f"has an integer of {len(literal)} digits, beyond what is accepted"
        ) from None
