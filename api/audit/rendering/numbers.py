"""How figures are written: as many digits as mean something, the interval beside."""

from __future__ import annotations

import math

from safety.audits.report import Cell, Estimate

NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_FORMS = {"percent": (100, ".1f"), "points": (100, "+.1f"), "number": (1, ",.1f")}
"""Unit to what its values are multiplied by, and how they are written."""


def value_text(value: float, unit: str) -> str:
    """A number in its unit; a dash for NaN."""
    if math.isnan(value):
        return NOTHING
    if unit == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if unit == "text":
        return f"{value:g}"
    factor, form = _FORMS.get(unit, (1, ".3f"))
    return _rounded(factor * value, form) + (" %" if unit == "percent" else "")


def interval_text(estimate: Estimate, unit: str) -> str:
    """An estimate's interval; empty where it has none."""
    if estimate.low is None or estimate.high is None or math.isnan(estimate.value):
        return ""
    factor, form = _FORMS.get(unit, (1, ".3f"))
    low, high = (_rounded(factor * bound, form) for bound in (estimate.low, estimate.high))
    return f"{low} to {high}"


def cell_text(cell: Cell, unit: str) -> tuple[str, str]:
    """A cell's value and its interval."""
    if cell is None:
        return NOTHING, ""
    if isinstance(cell, str):
        return cell, ""
    if isinstance(cell, Estimate):
        return value_text(cell.value, unit), interval_text(cell, unit)
    if isinstance(cell, int):
        return f"{cell:,}", ""
    return value_text(cell, unit), ""


def _rounded(value: float, form: str) -> str:
    """Written so, without the sign that rounding leaves before a zero."""
    text = f"{value:{form}}"
    is_zero = not any(digit in text for digit in "123456789")
    return text.lstrip("-+") if is_zero else text.replace("-", _MINUS)
