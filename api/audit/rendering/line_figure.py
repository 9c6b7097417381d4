"""Estimates along a number line."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from api.audit.rendering.palette import GRID, MARKERS, SERIES, SOFT, WIDTH, error_bars
from safety.audits import report

_MOST_MARKERS = 24  # beyond, a line is told by its colour alone


def draw_lines(figure: report.LineFigure) -> Canvas:
    """Lines with bands, or points with a fitted law; bars of counts below where there are some."""
    canvas = Canvas(figsize=(WIDTH, 4.4 if figure.shares else 3.8))
    if figure.shares:
        axes, below = canvas.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 1], "hspace": 0.12}
        )
        _share_bars(below, figure)
    else:
        axes = below = canvas.subplots()
    if figure.has_diagonal:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=":", zorder=1)
    index = 0
    for series in figure.series:
        color = SOFT if series.is_reference else SERIES[index % len(SERIES)]
        marker = "x" if series.is_reference else MARKERS[index % len(MARKERS)]
        index += not series.is_reference
        (_fitted if series.curve else _connected)(axes, series, color, marker)
    if figure.has_log_x:
        axes.set_xscale("log")
        ticks = sorted({x for series in figure.series for x in series.x})
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlim(*figure.x_range)
    if figure.y_range is not None:
        axes.set_ylim(*figure.y_range)
    axes.set_ylabel(figure.y_label)
    below.set_xlabel(figure.x_label)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if any(series.curve for series in figure.series):  # points are everywhere: beside them
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    elif any(series.name for series in figure.series):
        axes.legend(loc="best")
    return canvas


def _connected(axes: Axes, series: report.Series, color: str, marker: str) -> None:
    """The estimates joined by a line, their intervals as a band."""
    axes.plot(
        series.x,
        [one.value for one in series.y],
        color=color,
        marker=marker if len(series.x) <= _MOST_MARKERS else "",
        markersize=4.5,
        linewidth=1.4,
        label=series.name or "_",
        zorder=3,
    )
    lows = [one.value if one.low is None else one.low for one in series.y]
    highs = [one.value if one.high is None else one.high for one in series.y]
    axes.fill_between(series.x, lows, highs, color=color, alpha=0.15, linewidth=0, zorder=2)


def _fitted(axes: Axes, series: report.Series, color: str, marker: str) -> None:
    """The estimates as points with error bars, and the law that was fitted to them."""
    axes.errorbar(
        series.x,
        [one.value for one in series.y],
        yerr=error_bars(list(series.y)),
        fmt=marker,
        color=color,
        markersize=5,
        elinewidth=1.1,
        capsize=0,
        label=series.name or "_",
        zorder=3,
    )
    xs, ys = zip(*series.curve, strict=True)
    axes.plot(xs, ys, color=color, linewidth=1.2, alpha=0.75, zorder=2)


def _share_bars(axes: Axes, figure: report.LineFigure) -> None:
    low, high = figure.x_range
    width = (high - low) / len(figure.shares)
    centers = [low + (index + 0.5) * width for index in range(len(figure.shares))]
    axes.bar(centers, figure.shares, width=width * 0.86, color=GRID, zorder=2)
    for x, count in zip(centers, figure.shares, strict=True):
        if count:
            axes.annotate(
                f"{count:,}",
                (x, count),
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=SOFT,
                xytext=(0, 1),
                textcoords="offset points",
            )
    axes.set_ylabel("n", rotation=0, labelpad=10, va="center")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, max([*figure.shares, 1]) * 1.35)
