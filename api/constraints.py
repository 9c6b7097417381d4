"""What callers ask the text to be, in OpenAI's and vLLM's words, as the engine's constraint."""

from __future__ import annotations

from typing import Any

from serving.checks import show
from serving.constraint import ANY_OBJECT, Constraint
from serving.errors import RequestError

_TYPES = ("text", "json_object", "json_schema")


def constraint_of(response_format: Any, guided_regex: str | None) -> Constraint | None:
    """The constraint of a request; None where it may say anything.

    Args:
        response_format: OpenAI's object (`{"type": "json_object"}`, or `{"type": "json_schema",
            "json_schema": {"name": ..., "schema": {...}}}`), or None.
        guided_regex: vLLM's field, or None.

    Raises:
        RequestError: The object is none of these, both are given, or one is too long; `param` is
            the field at fault.
    """
    of_format = None if response_format is None else _of_format(response_format)
    if guided_regex is None:
        return of_format
    if of_format is not None:
        raise RequestError(
            "guided_regex and response_format exclude each other: give one of them",
            param="guided_regex",
        )
    return Constraint.of_regex(guided_regex)


def _of_format(response_format: Any) -> Constraint | None:
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind not in _TYPES:
        raise RequestError(
            f"response_format={show(response_format)} must have one of the types {_TYPES}",
            param="response_format",
        )
    named = response_format.get("json_schema")
    if kind != "json_schema":
        if named is not None:
            raise RequestError(
                f"response_format.json_schema is only for the type json_schema, not {kind}",
                param="response_format",
            )
        if kind == "text":
            return None
        return Constraint.of_json_schema(ANY_OBJECT, field="response_format")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise RequestError(
            f"response_format.json_schema={show(named)} must be an object with a schema, "
            "which is an object too",
            param="response_format",
        )
    return Constraint.of_json_schema(schema, field="response_format.json_schema.schema")
