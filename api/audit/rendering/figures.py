"""Figures as SVG that takes its colours from the page, so that one drawing serves light and dark.

Matplotlib draws with marker colours, which are then replaced by the page's CSS variables. Text
stays text, in the page's font. The series' colours are those of Okabe and Ito, which differ for
every common kind of colour blindness, and each series has a marker of its own as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from api.audit.rendering.numbers import NOTHING
from safety.audits import report
from safety.audits.report import Estimate

_INK, _SOFT, _GRID, _PAPER = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#0a0000", "#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_VARIABLES = {
    _INK: "--ink",
    _SOFT: "--soft",
    _GRID: "--grid",
    _PAPER: "--paper",
    **{color: f"--c{index}" for index, color in enumerate(_SERIES)},
}
_MOST_MARKERS = 24  # beyond, a line is told by its colour alone
_WIDTH = 8.6  # inches; a page shows 96 px an inch
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "talipot",
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def svg(figure: report.Figure) -> str:
    """An `<svg>` element to be put into a page that defines the colours."""
    with mpl.rc_context(_STYLE):
        canvas = _draw(figure)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    # Two figures in a page must not share the names of their clip paths and markers.
    prefix = f"f{abs(hash_text(figure.title)):x}"
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'"#([^"]+)"', rf'"#{prefix}-\1"', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    return text.replace("<svg ", f'<svg role="img" aria-label="{_escaped(figure.title)}" ', 1)


def hash_text(text: str) -> int:
    """The same number for the same text in every process."""
    return int.from_bytes(text.encode()[-12:], "big") ^ len(text)


def _draw(figure: report.Figure) -> Canvas:
    draw: dict[type[Any], Callable[[Any], Canvas]] = {
        report.LineFigure: _lines,
        report.DotFigure: _dots,
        report.BoxFigure: _boxes,
        report.ScatterFigure: _scatter,
        report.HeatFigure: _heat,
    }
    return draw[type(figure)](figure)


def _lines(figure: report.LineFigure) -> Canvas:
    canvas = Canvas(figsize=(_WIDTH, 4.4 if figure.shares else 3.8))
    if figure.shares:
        axes, below = canvas.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 1], "hspace": 0.12}
        )
        _share_bars(below, figure)
    else:
        axes = below = canvas.subplots()
    if figure.has_diagonal:
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=0.9, linestyle=":", zorder=1)
    index = 0
    for series in figure.series:
        color = _SOFT if series.is_reference else _SERIES[index % len(_SERIES)]
        marker = "x" if series.is_reference else _MARKERS[index % len(_MARKERS)]
        if len(series.x) > _MOST_MARKERS:
            marker = ""
        index += not series.is_reference
        values = [one.value for one in series.y]
        axes.plot(
            series.x,
            values,
            color=color,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
            label=series.name or "_",
            zorder=3,
        )
        lows = [one.value if one.low is None else one.low for one in series.y]
        highs = [one.value if one.high is None else one.high for one in series.y]
        axes.fill_between(series.x, lows, highs, color=color, alpha=0.15, linewidth=0, zorder=2)
    axes.set_xlim(*figure.x_range)
    if figure.y_range is not None:
        axes.set_ylim(*figure.y_range)
    axes.set_ylabel(figure.y_label)
    below.set_xlabel(figure.x_label)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if any(series.name for series in figure.series):
        axes.legend(loc="best")
    return canvas


def _share_bars(axes: Axes, figure: report.LineFigure) -> None:
    low, high = figure.x_range
    width = (high - low) / len(figure.shares)
    centers = [low + (index + 0.5) * width for index in range(len(figure.shares))]
    axes.bar(centers, figure.shares, width=width * 0.86, color=_GRID, zorder=2)
    for x, count in zip(centers, figure.shares, strict=True):
        if count:
            axes.annotate(
                f"{count:,}",
                (x, count),
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=_SOFT,
                xytext=(0, 1),
                textcoords="offset points",
            )
    axes.set_ylabel("n", rotation=0, labelpad=10, va="center")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, max([*figure.shares, 1]) * 1.35)


def _dots(figure: report.DotFigure) -> Canvas:
    count = len(figure.categories)
    kinds = len(figure.dots)
    step = 0.24 if kinds == 1 else 0.17 * kinds + 0.1
    canvas = Canvas(figsize=(_WIDTH, 0.9 + step * count + 0.22 * (kinds > 1)))
    axes = canvas.subplots()
    for kind, dots in enumerate(figure.dots):
        shift = (kind - (kinds - 1) / 2) * min(0.26, 0.7 / kinds)
        color = _SERIES[kind % len(_SERIES)]
        known = [(row + shift, one) for row, one in enumerate(dots.values) if one is not None]
        known = [(row, one) for row, one in known if one.value == one.value]
        axes.errorbar(
            [one.value for _, one in known],
            [row for row, _ in known],
            xerr=_errors([one for _, one in known]),
            fmt=_MARKERS[kind % len(_MARKERS)],
            color=color,
            markersize=5,
            elinewidth=1.2,
            capsize=0,
            label=dots.name,
            zorder=3,
        )
    if figure.reference is not None:
        axes.axvline(figure.reference, color=_SOFT, linewidth=0.9, linestyle=":", zorder=1)
        if figure.reference_label:
            axes.annotate(
                figure.reference_label,
                (figure.reference, 1),
                xytext=(3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
                color=_SOFT,
            )
    _categories(axes, figure.categories)
    if figure.x_range is not None:
        axes.set_xlim(*figure.x_range)
    axes.set_xlabel(figure.x_label)
    if kinds > 1:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.62 / canvas.get_figheight() - 0.02),
            ncols=min(kinds, 4),
        )
    return canvas


def _boxes(figure: report.BoxFigure) -> Canvas:
    count = len(figure.categories)
    canvas = Canvas(figsize=(_WIDTH, 0.9 + 0.27 * count))
    axes = canvas.subplots()
    for row, (p5, p25, p50, p75, p95) in enumerate(figure.percentiles):
        axes.plot([p5, p95], [row, row], color=_SOFT, linewidth=0.9, zorder=2)
        axes.barh(
            row,
            p75 - p25,
            left=p25,
            height=0.46,
            color=_SERIES[0],
            alpha=0.3,
            zorder=2,
            linewidth=0,
        )
        axes.plot([p50, p50], [row - 0.23, row + 0.23], color=_SERIES[0], linewidth=1.8, zorder=3)
    known = [(row, one) for row, one in enumerate(figure.means) if one.value == one.value]
    axes.errorbar(
        [one.value for _, one in known],
        [row for row, _ in known],
        xerr=_errors([one for _, one in known]),
        fmt="D",
        color=_SERIES[1],
        markersize=4,
        elinewidth=1.2,
        zorder=4,
    )
    _categories(axes, figure.categories)
    if figure.x_range is not None:
        axes.set_xlim(*figure.x_range)
    axes.set_xlabel(figure.x_label)
    return canvas


def _scatter(figure: report.ScatterFigure) -> Canvas:
    canvas = Canvas(figsize=(_WIDTH, 4.4))
    axes = canvas.subplots()
    axes.scatter(
        [x for x, _ in figure.points],
        [y for _, y in figure.points],
        s=18,
        color=_SERIES[0],
        linewidths=0,
        alpha=0.85,
        zorder=3,
    )
    if figure.line is not None:
        (x0, y0), (x1, y1) = figure.line
        axes.plot([x0, x1], [y0, y1], color=_SERIES[1], linewidth=1.4, zorder=2)
    for name, point in zip(figure.names, figure.points, strict=True):
        if name:
            axes.annotate(
                name, point, xytext=(4, 3), textcoords="offset points", fontsize=7.5, color=_SOFT
            )
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    axes.grid()
    axes.set_axisbelow(True)
    return canvas


def _heat(figure: report.HeatFigure) -> Canvas:
    rows, columns = len(figure.rows), len(figure.columns)
    canvas = Canvas(figsize=(min(_WIDTH, 2.2 + 0.95 * columns), 0.5 + 0.235 * rows))
    axes = canvas.subplots()
    for row, values in enumerate(figure.values):
        for column, value in enumerate(values):
            if value != value:
                axes.text(column, row, NOTHING, ha="center", va="center", fontsize=8, color=_SOFT)
                continue
            # The worse, the stronger: what is wrong must catch the eye, not what is right.
            weakness = min(1.0, max(0.0, (1 - value) / 0.5))
            axes.barh(
                row,
                0.96,
                left=column - 0.48,
                height=0.9,
                color=_SERIES[1],
                alpha=0.75 * weakness**0.7,
                linewidth=0,
                zorder=2,
            )
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8, zorder=3)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks(range(columns), figure.columns)
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), figure.rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return canvas


def _categories(axes: Axes, names: Any) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _errors(estimates: list[Estimate]) -> list[list[float]]:
    """Distances from the value to both ends, as matplotlib wants them."""
    below = [max(0.0, one.value - (one.value if one.low is None else one.low)) for one in estimates]
    above = [
        max(0.0, (one.value if one.high is None else one.high) - one.value) for one in estimates
    ]
    return [below, above]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
