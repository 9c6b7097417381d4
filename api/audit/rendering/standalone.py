"""Figures as files of their own, that bring the page's colours with them."""

from __future__ import annotations

import re
from pathlib import Path

from api.audit.rendering.figures import svg
from safety.audits.report import Figure

_STYLE = Path(__file__).parent / "report.css"
_DARK = r"@media screen and \(prefers-color-scheme: dark\) \{\s*"
_COLOURS = re.compile(rf"(?:{_DARK})?:root \{{.*?\}}(?:\s*\}})?", re.S)
_FONT = 'svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }'


def standalone_svg(figure: Figure) -> str:
    """An SVG file; on a dark page it is drawn in light colours, where the viewer tells it so."""
    colours = "\n".join(_COLOURS.findall(_STYLE.read_text(encoding="utf-8")))
    opening, rest = svg(figure).split(">", 1)
    return f"{opening}>\n<style>{_FONT}\n{colours}</style>{rest}"
