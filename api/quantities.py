"""Sizes and rates as people write them: `32GB`, `32GiB`, `1200GB/s`, `275T`."""

from __future__ import annotations

import re

from model.errors import ConfigError

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_PREFIXES = _DECIMAL | {"K": 1e3} | _BINARY
_EXAMPLES = {"B": "32GB or 32GiB", "B/s": "1200GB/s", "FLOP/s": "275T or 275TFLOP/s"}
_HIGHEST = 1e21

_PATTERN = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([kKMGTP]?i?)(.*)", re.S)


def parse_quantity(field: str, text: str, unit: str) -> float:
    """The number of `unit` that `text` says.

    Args:
        field: What the value is of, for the message.
        text: A number, perhaps a decimal or binary prefix, perhaps the unit.
        unit: `B`, `B/s` or `FLOP/s`.

    Raises:
        ConfigError: It is not a quantity of that unit, or not above 0 and at most 1e21.
    """
    matched = _PATTERN.fullmatch(text.strip())
    if matched is None or matched[2] not in _PREFIXES or matched[3] not in ("", unit):
        raise ConfigError(f"{field}={text!r} must be a quantity such as {_EXAMPLES[unit]}")
    value = float(matched[1]) * _PREFIXES[matched[2]]
    if not 0 < value <= _HIGHEST:
        raise ConfigError(f"{field}={text!r} must be above 0 and at most {_HIGHEST:g} {unit}")
    return value
