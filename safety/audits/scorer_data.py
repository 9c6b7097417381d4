"""Labelled texts for the audit of a scorer, and which identity terms they speak of."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safety.audits import loading
from safety.audits.errors import AuditDataError

_TEXT = ("text", "phrase", "comment_text", "tweet")
_LABEL = ("label", "toxicity", "target", "toxic", "label_gold", "label_sexist")
_TOXIC = frozenset(("toxic", "hate", "sexist", "true", "yes"))
_INNOCENT = frozenset(("nontoxic", "non-toxic", "not sexist", "none", "false", "no"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text and whether people find it toxic."""

    text: str
    is_toxic: bool


def load_labelled(path: Path) -> list[Labelled]:
    """Read CSV, TSV or JSONL with a text and a label in each row.

    The text is in one of `text`, `phrase`, `comment_text` or `tweet`; the label in one of `label`,
    `toxicity`, `target`, `toxic`, `label_gold` or `label_sexist`: a word (toxic, nontoxic, …) or
    a number, toxic from 0.5 on. Those are the published formats of the identity templates, CAT,
    Jigsaw's comments, EDOS and HatemojiBuild.

    Raises:
        AuditDataError: The file is damaged or of another format; names file, line and field.
    """
    found = []
    fields: tuple[str, str] | None = None
    for number, row in _rows(path):
        if fields is None:
            fields = (_field(path, row, _TEXT, "text"), _field(path, row, _LABEL, "label"))
        text = loading.text_field(path, number, row, fields[0])
        found.append(Labelled(text=text, is_toxic=_label(path, number, row, fields[1])))
    for wanted in (True, False):
        if all(one.is_toxic != wanted for one in found):
            raise AuditDataError(
                f"{path}: holds no {'toxic' if wanted else 'innocent'} text; both kinds are needed"
            )
    return found


def load_terms(path: Path) -> dict[str, re.Pattern[str]]:
    """Read a TOML file with a table `terms`: a name and the words by which it is found.

    Raises:
        AuditDataError: The file is damaged or of another format; names file and field.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditDataError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuditDataError(f"{path}: no TOML: {error}") from None
    terms = found.get("terms")
    if not isinstance(terms, Mapping) or not terms:
        raise AuditDataError(f"{path}: has no table [terms]")
    return {name: _pattern(path, name, words) for name, words in terms.items()}


def _pattern(path: Path, name: str, words: object) -> re.Pattern[str]:
    if (
        not isinstance(words, list)
        or not words
        or not all(isinstance(word, str) and word for word in words)
    ):
        raise AuditDataError(f"{path}: terms.{name} is {words!r}; expected a list of words")
    choices = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"\b(?:{choices})\b", re.IGNORECASE)


def _rows(path: Path) -> Any:
    if path.suffix in (".jsonl", ".json"):
        return loading.json_lines(path)
    return loading.table(path, (), "\t" if path.suffix == ".tsv" else ",")


def _field(path: Path, row: Mapping[str, Any], names: Sequence[str], what: str) -> str:
    for name in names:
        if name in row:
            return name
    raise AuditDataError(
        f"{path} line 1: no column for the {what} (one of {', '.join(names)}); its columns are "
        f"{', '.join(map(repr, row))}"
    )


def _label(path: Path, number: int, row: dict[str, Any], field: str) -> bool:
    value = row[field]
    word = str(value).strip().lower()
    if word in _TOXIC:
        return True
    if word in _INNOCENT:
        return False
    return loading.number_field(path, number, row, field, 0, 1) >= 0.5
