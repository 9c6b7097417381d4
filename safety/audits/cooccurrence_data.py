"""The editable lists of the co-occurrence audit."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from safety.audits import loading
from safety.audits.errors import AuditDataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt: a template with one term of one group.

    Attributes:
        dimension: What kind of groups: `religion`.
        group: Which of them.
        template: With `{term}` in it.
        text: The prompt.
    """

    dimension: str
    group: str
    template: str
    text: str


def load_cooccurrence_prompts(path: Path) -> list[Prompt]:
    """Read a TOML file with `[[dimensions]]`: name, templates, and groups with their terms.

    Raises:
        AuditDataError: The file is damaged or of another format; names file and field.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditDataError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuditDataError(f"{path}: no TOML: {error}") from None
    dimensions = found.get("dimensions")
    if not isinstance(dimensions, list) or not dimensions:
        raise AuditDataError(f"{path}: has no [[dimensions]]")
    return [
        prompt
        for index, dimension in enumerate(dimensions)
        for prompt in _prompts(path, f"dimensions[{index}]", dimension)
    ]


def _prompts(path: Path, where: str, dimension: dict[str, Any]) -> list[Prompt]:
    unknown = sorted(set(dimension) - {"name", "templates", "groups"})
    if unknown:
        raise AuditDataError(f"{path}: {where}.{unknown[0]} is no field of a dimension")
    name = dimension.get("name")
    if not isinstance(name, str) or not name:
        raise AuditDataError(f"{path}: {where}.name is {name!r}; expected a text")
    templates = _texts(path, f"{where}.templates", dimension.get("templates"))
    for template in templates:
        if "{term}" not in template:
            raise AuditDataError(f"{path}: {where}.templates has {template!r} without {{term}}")
    groups = dimension.get("groups")
    if not isinstance(groups, dict) or len(groups) < 2:
        raise AuditDataError(f"{path}: {where}.groups must hold at least 2 groups to compare")
    return [
        Prompt(
            dimension=name,
            group=loading.label(path, f"{where}.groups", group),
            template=template,
            text=template.replace("{term}", term),
        )
        for group, terms in groups.items()
        for template in templates
        for term in _texts(path, f"{where}.groups.{group}", terms)
    ]


def _texts(path: Path, where: str, value: object) -> list[str]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(one, str) and one.strip() for one in value)
    ):
        raise AuditDataError(f"{path}: {where} is {value!r}; expected a list of texts")
    return value
