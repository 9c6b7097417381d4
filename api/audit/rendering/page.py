"""The page around tables and figures."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from api.audit.rendering import figures
from api.audit.rendering.numbers import cell_text, interval_text, value_text
from api.installation import version
from safety.audits.report import Report, Table, TextView

_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Whose figures these are: what every table would have to repeat otherwise.

    Attributes:
        command: What `talipot` was asked to do.
        rows: (what, which) of model, scorer, data and settings.
        versions: (program, version).
    """

    command: str
    rows: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Provenance:
        """From a run's identity."""
        rows = []
        for key in ("model", "scorer"):
            found = identity.get(key)
            if found is not None:
                rows.append((key.capitalize(), f"{found['name']} ({found['version']})"))
        for name, value in identity["settings"].items():
            rows.append((_sentence_case(name.replace("_", " ")), _setting(value)))
        command = identity.get("command", f"audit {identity['audit']}")
        return cls(command=command, rows=tuple(rows), versions=program_versions())


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def render(report: Report, provenance: Provenance) -> str:
    """One HTML file, everything inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell_text
    environment.filters["value"] = value_text
    environment.filters["interval"] = interval_text
    environment.filters["svg"] = lambda block: Markup(figures.svg(block))
    environment.tests["paragraph"] = lambda block: isinstance(block, str)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["text_view"] = lambda block: isinstance(block, TextView)
    return environment.get_template("report.html").render(
        report=report,
        provenance=provenance,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
    )


def program_versions() -> tuple[tuple[str, str], ...]:
    """Versions of what computed the figures."""
    packages = ("jax", "numpy", "scipy", "matplotlib")
    return (
        ("Talipot", version()),
        ("Python", platform.python_version()),
        *((name, package_version(name)) for name in packages),
    )


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "not set" if value is None else str(value)
