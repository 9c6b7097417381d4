"""Writes the figures of a model card: `python -m safety.scorers.embedded.training.card DATA CARD`.

What stands in the card between its two marks is replaced; the rest is written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safety.scorers.embedded.scorer import EmbeddedScorer
from safety.scorers.embedded.training.evaluate import Bin, figures, reliability

_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"
_WIDTH, _HEIGHT = 320, 320


def table(scorer: EmbeddedScorer, data: Path) -> str:
    """Figures and reliability as markdown."""
    lines = [f"Of version `{scorer.version}`.", "", "| figure | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.3f} |" for name, value in figures(scorer, data).items()]
    lines += [
        "",
        "Calibration of `toxicity` on the test half of CAT, by bins of its score:",
        "",
        "| comments | mean score | Perspective's mean | share that Perspective calls toxic |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {part.number:,} | {part.score:.2f} | {part.perspective:.2f} | {part.toxic:.2f} |"
        for part in reliability(scorer, data)
    ]
    return "\n".join(lines)


def curve(bins: list[Bin]) -> str:
    """The reliability curve as SVG."""

    def point(x: float, y: float) -> str:
        return f"{40 + x * (_WIDTH - 60):.1f},{_HEIGHT - 40 - y * (_HEIGHT - 60):.1f}"

    measured = " ".join(point(part.score, part.perspective) for part in bins)
    dots = "".join(
        '<circle r="3" fill="#1f6f8b" cx="{}" cy="{}"/>'.format(
            *point(part.score, part.perspective).split(",")
        )
        for part in bins
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        f'<polyline points="{point(0, 1)} {point(0, 0)} {point(1, 0)}" fill="none" stroke="#444"/>'
        f'<polyline points="{point(0, 0)} {point(1, 1)}" fill="none" stroke="#bbb" '
        'stroke-dasharray="4"/>'
        f'<polyline points="{measured}" fill="none" stroke="#1f6f8b" stroke-width="2"/>{dots}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
        "score of the embedded scorer</text>"
        f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_HEIGHT / 2})">mean of Perspective</text></svg>\n'
    )


def main(data: Path, card: Path) -> None:
    """Replace the figures in a card, and draw the curve beside it."""
    scorer = EmbeddedScorer()
    text = card.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    filled = f"{before}{_BEGIN}\n{table(scorer, data)}\n{_END}{after}"
    card.write_text(filled, encoding="utf-8")
    drawing = curve(reliability(scorer, data))
    card.with_name("reliability.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
