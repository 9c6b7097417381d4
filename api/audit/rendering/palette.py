"""Colours, markers and sizes that all figures share.

Matplotlib draws with marker colours, which are then replaced by the page's CSS variables. The
series' colours are those of Okabe and Ito, which differ for every common kind of colour blindness,
and each series has a marker of its own as well.
"""

from __future__ import annotations

from typing import Any

from safety.audits.report import Estimate

INK, SOFT, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#0a0000", "#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005")
MARKERS = ("o", "s", "^", "D", "v", "P")
VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--c{index}" for index, color in enumerate(SERIES)},
}
WIDTH = 8.6  # inches; a page shows 96 px an inch
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "talipot",
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def error_bars(estimates: list[Estimate]) -> list[list[float]]:
    """Distances from the value to both ends, as matplotlib wants them."""
    below = [max(0.0, one.value - (one.value if one.low is None else one.low)) for one in estimates]
    above = [
        max(0.0, (one.value if one.high is None else one.high) - one.value) for one in estimates
    ]
    return [below, above]
