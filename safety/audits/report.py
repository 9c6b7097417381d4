"""A report as plain data: text, tables and figures, without a word on how they look."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of things that it is from.

    Attributes:
        value: NaN where nothing was there to measure.
        low: Lower end; None where no interval can be given.
        high: Upper end.
        n: How many independent things (prompts, sentences, pairs) it rests on.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """For `summary.json`; JSON has no NaN."""
        value = None if math.isnan(self.value) else self.value
        return {"value": value, "low": self.low, "high": self.high, "n": self.n}


Cell: TypeAlias = str | int | float | Estimate | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A table's column.

    Attributes:
        title: Its heading, with the unit if there is one.
        unit: `fraction` shows 0.123, `percent` 12.3 %, `points` 12.3, `p` a p-value, `number` 12.3,
            `text` as is.
        is_published: Whether its figures are another's; they are set apart.
    """

    title: str
    unit: str = "text"
    is_published: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table with what must be known to read it."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Estimates along an axis.

    Attributes:
        name: In the legend, with n where it is one for all; empty if the axes say it all.
        x: Where they are: numbers for lines, positions for dots.
        y: The estimates.
        is_reference: Whether it is there to compare with; drawn grey.
        curve: (x, y) along a law that was fitted to them. With it, the estimates are points with
            error bars, and the law is the line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Estimate]
    is_reference: bool = False
    curve: Sequence[tuple[float, float]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineFigure:
    """Estimates along a number line, with their intervals as bands.

    Attributes:
        title: What is shown.
        caption: How to read it.
        x_label: With the unit.
        y_label: With the unit.
        series: The lines.
        x_range: From, to.
        y_range: From, to; fitted if None.
        has_diagonal: Whether the line y = x is drawn.
        has_log_x: Whether equal ratios of x are equally far apart; then the series' own x are
            the ticks.
        shares: Counts in equal bins of the x range, drawn as bars below.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_range: tuple[float, float]
    y_range: tuple[float, float] | None = None
    has_diagonal: bool = False
    has_log_x: bool = False
    shares: Sequence[int] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots:
    """One kind of dot in a `DotFigure`: an estimate for each of its categories."""

    name: str
    values: Sequence[Estimate | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DotFigure:
    """Estimates by category, one line for each, with intervals.

    Attributes:
        title: What is shown.
        caption: How to read it.
        x_label: With the unit.
        categories: From top to bottom.
        dots: Kinds of dots; each has a value for every category.
        reference: A value to compare with, drawn as a vertical line.
        reference_label: What that value is.
        x_range: From, to; fitted if None.
    """

    title: str
    caption: str
    x_label: str
    categories: Sequence[str]
    dots: Sequence[Dots]
    reference: float | None = None
    reference_label: str = ""
    x_range: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxFigure:
    """Distributions by category: the 5th, 25th, 50th, 75th and 95th percentile.

    Attributes:
        title: What is shown.
        caption: How to read it.
        x_label: With the unit.
        categories: From top to bottom, with n.
        percentiles: For each category its five.
        means: For each category its mean with an interval.
        x_range: From, to; fitted if None.
    """

    title: str
    caption: str
    x_label: str
    categories: Sequence[str]
    percentiles: Sequence[tuple[float, float, float, float, float]]
    means: Sequence[Estimate]
    x_range: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScatterFigure:
    """Points, some of them named, with a fitted line.

    Attributes:
        title: What is shown.
        caption: How to read it.
        x_label: With the unit.
        y_label: With the unit.
        points: (x, y).
        names: For each point its name.
        line: Two ends of a line through them; None for none.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    points: Sequence[tuple[float, float]]
    names: Sequence[str]
    line: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeatFigure:
    """Values from 0 to 1 in a grid, written in their cells.

    Attributes:
        title: What is shown.
        caption: How to read it.
        rows: Names from top to bottom, with n.
        columns: Names from left to right.
        values: [rows, columns]; NaN where there is none.
    """

    title: str
    caption: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkedPart:
    """A part of a text; marked where it has a source.

    Attributes:
        text: The part.
        source: What is said about it when it is pointed at, a paragraph each line; empty for a
            part that is not marked.
        strength: How strongly it is marked, in [0, 1].
    """

    text: str
    source: str = ""
    strength: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkedText:
    """A text to look at.

    Attributes:
        title: Where it is from.
        before: What stands before it, shown pale.
        parts: The text.
    """

    title: str
    before: str
    parts: Sequence[MarkedPart]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextView:
    """Texts with marked parts, which tell their sources when they are pointed at."""

    title: str
    caption: str
    texts: Sequence[MarkedText]


Figure: TypeAlias = LineFigure | DotFigure | BoxFigure | ScatterFigure | HeatFigure
Block: TypeAlias = Table | Figure | TextView | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a report: its heading and what stands under it; a text is a paragraph."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """A figure at the top of a report.

    Attributes:
        label: What it is.
        value: With its interval.
        unit: As in `Column`.
        note: What it is compared with, or whose it is.
    """

    label: str
    value: Estimate
    unit: str = "fraction"
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an audit tells people.

    Attributes:
        title: Its name.
        question: What it asks, in a sentence or two.
        headlines: The two to four figures that matter most.
        sections: In reading order.
        methods: Paragraphs on how it was done.
        references: Papers, one a line.
    """

    title: str
    question: str
    headlines: Sequence[Headline]
    sections: Sequence[Section]
    methods: Sequence[str]
    references: Sequence[str]
