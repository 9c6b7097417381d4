"""Hold a config's values to the types that its fields declare: TOML promises none."""

from __future__ import annotations

import dataclasses
import types
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from model.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_NAMES = {int: "an integer", float: "a number", str: "a string"}
_PLURALS = {int: "integers", float: "numbers", str: "strings"}


def check_types(config: DataclassInstance, section: str = "") -> None:
    """Check every field of `config`, a table called `section` in its file.

    Raises:
        ConfigError: A value has another type; the message names field, value and type.
    """
    hints = get_type_hints(type(config))
    prefix = f"{section}." if section else ""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not _fits(value, hints[field.name]):
            raise ConfigError(f"{prefix}{field.name}={value!r} must be {_name(hints[field.name])}")


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(each, item) for each in value)
    if get_origin(hint) is types.UnionType:
        return any(_fits(value, option) for option in get_args(hint))
    if isinstance(value, bool):  # an int to Python, but never a count
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {get_args(hint)}"
    if get_origin(hint) is tuple:
        return f"a list of {_PLURALS.get(get_args(hint)[0], 'tables')}"
    if get_origin(hint) is types.UnionType:  # TOML has no null: None is a key left out
        return " or ".join(_name(each) for each in get_args(hint) if each is not types.NoneType)
    return _NAMES.get(hint, "a table")
