"""The request fields `safety` and `memorization`: checked alike, whichever door they come by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from memorization.policy import (
    MAX_SPAN_TOKENS,
    MEMORIZATION_ACTIONS,
    MIN_SPAN_TOKENS,
    MemorizationPolicy,
)
from safety.policy import MAX_WINDOW_TOKENS, MIN_WINDOW_TOKENS, SAFETY_ACTIONS, SafetyPolicy
from serving.checks import check_boolean, check_integer, check_number, show
from serving.errors import RequestError

MAX_LABELS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardFields:
    """What a call asks of the guards; policies as given, before the server's are applied.

    Attributes:
        safety: The fields that were given of a `SafetyPolicy`; None for the server's policy.
        memorization: The same of a `MemorizationPolicy`.
        may_loosen: Whether the caller's key may ask for less than the server's policy.
    """

    safety: Mapping[str, Any] | None = None
    memorization: Mapping[str, Any] | None = None
    may_loosen: bool = False


def checked_safety(fields: object) -> dict[str, Any]:
    """The fields of a `SafetyPolicy`, each within its limits; absent ones are left out.

    Raises:
        RequestError: A field is absent, unknown or out of range; `param` is "safety".
    """
    given = _fields("safety", fields, SafetyPolicy)
    try:
        _check_action("safety", given, SAFETY_ACTIONS)
        if "threshold" in given:
            check_number("safety.threshold", given["threshold"], minimum=0, maximum=1)
        if "window_tokens" in given:
            check_integer(
                "safety.window_tokens",
                given["window_tokens"],
                minimum=MIN_WINDOW_TOKENS,
                maximum=MAX_WINDOW_TOKENS,
            )
        if "prompt" in given:
            check_boolean("safety.prompt", given["prompt"])
        if "labels" in given:
            given["labels"] = _labels(given["labels"])
    except RequestError as error:
        raise RequestError(str(error), param="safety") from None
    return given


def checked_memorization(fields: object) -> dict[str, Any]:
    """The fields of a `MemorizationPolicy`, each within its limits; absent ones are left out.

    Raises:
        RequestError: A field is absent, unknown or out of range; `param` is "memorization".
    """
    given = _fields("memorization", fields, MemorizationPolicy)
    try:
        _check_action("memorization", given, MEMORIZATION_ACTIONS)
        if "min_tokens" in given:
            check_integer(
                "memorization.min_tokens",
                given["min_tokens"],
                minimum=MIN_SPAN_TOKENS,
                maximum=MAX_SPAN_TOKENS,
            )
    except RequestError as error:
        raise RequestError(str(error), param="memorization") from None
    return given


def _fields(name: str, fields: object, policy: type[Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(policy)}
    if not isinstance(fields, Mapping):
        raise RequestError(f"{name}={show(fields)} must be an object", param=name)
    unknown = sorted(str(field) for field in fields if field not in known)
    if unknown:
        raise RequestError(f"{name}.{unknown[0]} is not a field of {name}", param=name)
    return {field: value for field, value in fields.items() if value is not None}


def _check_action(name: str, given: Mapping[str, Any], actions: tuple[str, ...]) -> None:
    if "action" not in given:
        raise RequestError(f"{name}.action is required: one of {', '.join(actions)}")
    if given["action"] not in actions:
        raise RequestError(
            f"{name}.action={show(given['action'])} must be one of {', '.join(actions)}"
        )


def _labels(value: object) -> frozenset[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise RequestError(f"safety.labels={show(value)} must be a list of strings")
    if not 0 < len(value) <= MAX_LABELS:
        raise RequestError(f"safety.labels has {len(value)} labels; 1 to {MAX_LABELS} are accepted")
    return frozenset(value)
