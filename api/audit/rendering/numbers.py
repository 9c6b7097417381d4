"""How figures are written: as many digits as mean something, the interval beside."""

from __future__ import annotations

import math

from safety.audits.report import Cell, Estimate

NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def value_text(value: float, unit: str) -> str:
    """A number in its unit; a dash for NaN."""
    if math.isnan(value):
        return NOTHING
    if unit == "percent":
        return f"{100 * value:.1f} %"
    if unit == "points":
        return f"{100 * value:+.1f}".replace("-", _MINUS)
    if unit == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if unit == "text":
        return f"{value:g}"
    if unit == "number":
        return f"{value:,.1f}"
    return f"{value:.3f}".replace("-", _MINUS)


def interval_text(estimate: Estimate, unit: str) -> str:
    """An estimate's interval; empty where it has none."""
    if estimate.low is None or estimate.high is None or math.isnan(estimate.value):
        return ""
    if unit == "percent":
        return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
    if unit == "points":
        return f"{100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}".replace("-", _MINUS)
    if unit == "number":
        return f"{estimate.low:,.1f} to {estimate.high:,.1f}"
    return f"{estimate.low:.3f} to {estimate.high:.3f}".replace("-", _MINUS)


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
