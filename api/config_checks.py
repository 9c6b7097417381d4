"""Checks of settings; each error names field, value and limit."""

from __future__ import annotations

from model.errors import ConfigError


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Accept a number within the closed range.

    Raises:
        ConfigError: It is outside.
    """
    if not low <= value <= high:
        raise ConfigError(f"{field}={value} must be from {low} to {high}")
