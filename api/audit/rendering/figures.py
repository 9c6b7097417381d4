"""Figures as SVG that takes its colours from the page, so that one drawing serves light and dark.

Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from api.audit.rendering.line_figure import draw_lines
from api.audit.rendering.numbers import NOTHING
from api.audit.rendering.palette import (
    MARKERS,
    SERIES,
    SOFT,
    STYLE,
    VARIABLES,
    WIDTH,
    error_bars,
)
from safety.audits import report

_MARGIN = 0.015  # of an axis


def svg(figure: report.Figure) -> str:
    """An `<svg>` element to be put into a page that defines the colours."""
    with mpl.rc_context(STYLE):
        canvas = _draw(figure)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for color, variable in VARIABLES.items():
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
        report.LineFigure: draw_lines,
        report.DotFigure: _dots,
        report.BoxFigure: _boxes,
        report.ScatterFigure: _scatter,
        report.HeatFigure: _heat,
    }
    return draw[type(figure)](figure)


def _dots(figure: report.DotFigure) -> Canvas:
    count = len(figure.categories)
    kinds = len(figure.dots)
    step = 0.24 if kinds == 1 else 0.17 * kinds + 0.1
    canvas = Canvas(figsize=(WIDTH, 0.9 + step * count + 0.22 * (kinds > 1)))
    axes = canvas.subplots()
    for kind, dots in enumerate(figure.dots):
        shift = (kind - (kinds - 1) / 2) * min(0.26, 0.7 / kinds)
        color = SERIES[kind % len(SERIES)]
        known = [(row + shift, one) for row, one in enumerate(dots.values) if one is not None]
        known = [(row, one) for row, one in known if one.value == one.value]
        axes.errorbar(
            [one.value for _, one in known],
            [row for row, _ in known],
            xerr=error_bars([one for _, one in known]),
            fmt=MARKERS[kind % len(MARKERS)],
            color=color,
            markersize=5,
            elinewidth=1.2,
            capsize=0,
            label=dots.name,
            zorder=3,
        )
    if figure.reference is not None:
        axes.axvline(figure.reference, color=SOFT, linewidth=0.9, linestyle=":", zorder=1)
        if figure.reference_label:
            axes.annotate(
                figure.reference_label,
                (figure.reference, 1),
                xytext=(3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
                color=SOFT,
            )
    _categories(axes, figure.categories)
    if figure.x_range is not None:
        axes.set_xlim(*_with_margin(*figure.x_range))
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
    canvas = Canvas(figsize=(WIDTH, 0.9 + 0.27 * count))
    axes = canvas.subplots()
    for row, (p5, p25, p50, p75, p95) in enumerate(figure.percentiles):
        axes.plot([p5, p95], [row, row], color=SOFT, linewidth=0.9, zorder=2)
        axes.barh(
            row,
            p75 - p25,
            left=p25,
            height=0.46,
            color=SERIES[0],
            alpha=0.3,
            zorder=2,
            linewidth=0,
        )
        axes.plot([p50, p50], [row - 0.23, row + 0.23], color=SERIES[0], linewidth=1.8, zorder=3)
    known = [(row, one) for row, one in enumerate(figure.means) if one.value == one.value]
    axes.errorbar(
        [one.value for _, one in known],
        [row for row, _ in known],
        xerr=error_bars([one for _, one in known]),
        fmt="D",
        color=SERIES[1],
        markersize=4,
        elinewidth=1.2,
        zorder=4,
    )
    _categories(axes, figure.categories)
    if figure.x_range is not None:
        axes.set_xlim(*_with_margin(*figure.x_range))
    axes.set_xlabel(figure.x_label)
    return canvas


def _with_margin(low: float, high: float) -> tuple[float, float]:
    """A range with room for whole markers at its ends."""
    margin = _MARGIN * (high - low)
    return low - margin, high + margin


def _scatter(figure: report.ScatterFigure) -> Canvas:
    canvas = Canvas(figsize=(WIDTH, 4.4))
    axes = canvas.subplots()
    axes.scatter(
        [x for x, _ in figure.points],
        [y for _, y in figure.points],
        s=18,
        color=SERIES[0],
        linewidths=0,
        alpha=0.85,
        zorder=3,
    )
    if figure.line is not None:
        (x0, y0), (x1, y1) = figure.line
        axes.plot([x0, x1], [y0, y1], color=SERIES[1], linewidth=1.4, zorder=2)
    for name, point in zip(figure.names, figure.points, strict=True):
        if name:
            axes.annotate(
                name, point, xytext=(4, 3), textcoords="offset points", fontsize=7.5, color=SOFT
            )
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    axes.grid()
    axes.set_axisbelow(True)
    return canvas


def _heat(figure: report.HeatFigure) -> Canvas:
    rows, columns = len(figure.rows), len(figure.columns)
    canvas = Canvas(figsize=(min(WIDTH, 2.2 + 0.95 * columns), 0.5 + 0.235 * rows))
    axes = canvas.subplots()
    for row, values in enumerate(figure.values):
        for column, value in enumerate(values):
            if value != value:
                axes.text(column, row, NOTHING, ha="center", va="center", fontsize=8, color=SOFT)
                continue
            # The worse, the stronger: what is wrong must catch the eye, not what is right.
            weakness = min(1.0, max(0.0, (1 - value) / 0.5))
            axes.barh(
                row,
                0.96,
                left=column - 0.48,
                height=0.9,
                color=SERIES[1],
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


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
