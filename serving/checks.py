"""Checks of single fields; each error names field, value and limit."""

from __future__ import annotations

import math
from typing import Any

from serving.errors import RequestError

_SHOWN_CHARACTERS = 80


def show(value: Any) -> str:
    """`repr`, shortened: an error message must not carry a megabyte of input."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def check_integer(
    field: str, value: Any, *, minimum: int | None = None, maximum: int | None = None
) -> None:
    """Accept an `int` (not a `bool`) within the closed range.

    Raises:
        RequestError: It is something else, or out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        low_enough = maximum is None or value <= maximum
        if (minimum is None or value >= minimum) and low_enough:
            return
    limit = _range(minimum, maximum)
    raise RequestError(f"{field}={show(value)} must be an integer{limit}", param=field)


def check_number(
    field: str, value: Any, *, minimum: float | None = None, maximum: float | None = None
) -> None:
    """Accept a finite `int` or `float` (not a `bool`) within the closed range.

    Raises:
        RequestError: It is something else, NaN, infinite, or out of range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
        low_enough = maximum is None or value <= maximum
        if (minimum is None or value >= minimum) and low_enough:
            return
    limit = _range(minimum, maximum)
    raise RequestError(f"{field}={show(value)} must be a finite number{limit}", param=field)


def check_boolean(field: str, value: Any) -> None:
    """Accept a `bool`.

    Raises:
        RequestError: It is something else.
    """
    if not isinstance(value, bool):
        raise RequestError(f"{field}={show(value)} must be true or false", param=field)


def check_token_ids(field: str, value: Any) -> None:
    """Accept a tuple of non-negative integers.

    Raises:
        RequestError: It is something else; names the first offending index.
    """
    if not isinstance(value, tuple):
        raise RequestError(f"{field}={show(value)} must be a tuple of token ids", param=field)
    for index, token_id in enumerate(value):
        if type(token_id) is not int or token_id < 0:
            raise RequestError(
                f"{field}[{index}]={show(token_id)} must be an integer of at least 0", param=field
            )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the floats
        return False


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    if maximum is not None:
        return f" of at most {maximum}"
    return ""
