"""Sentences about groups of people made of our own templates: see `counterfactuals.toml`."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safety.scorers.embedded.training.sources import LabelledText

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]+)\]")
_ARTICLE = re.compile(r"\ba (?=[aeiou])", re.IGNORECASE)
_IN_TEN_HELD_OUT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    groups: str
    labels: Mapping[str, tuple[float, float]]
    templates: Sequence[str]
    weight: float


class Counterfactuals:
    """Draws sentences; the same seed gives the same."""

    def __init__(self, seed: int, *, held_out: bool = False) -> None:
        """With `held_out` from the tenth of templates and groups that training never sees."""
        path = Path(__file__).with_name("counterfactuals.toml")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        lists: dict[str, list[str]] = content["lists"]
        self._random = random.Random(seed)
        self._lists = lists
        self._groups = {
            name: [group.split("|") for group in _part(lists[name], held_out=held_out)]
            for name in ("groups", "slurs")
        }
        kinds = [
            _Kind(
                name=kind["name"],
                groups=kind.get("groups", "groups"),
                labels={label: (value, 1.0) for label, value in kind["labels"].items()},
                templates=_part(kind["templates"], held_out=held_out),
                weight=float(kind["weight"]),
            )
            for kind in content["kinds"]
        ]
        # A tenth of few templates may be none.
        self._kinds = [kind for kind in kinds if kind.templates]

    def draw(self, number: int) -> Iterator[LabelledText]:
        """So many sentences, kinds by their weights."""
        for kind in self._random.choices(
            self._kinds, [kind.weight for kind in self._kinds], k=number
        ):
            yield LabelledText(self._sentence(kind), f"own: {kind.name}", kind.labels, False)

    def names(self) -> list[str]:
        """All that groups are called here."""
        return [name for groups in self._groups.values() for group in groups for name in group]

    def _sentence(self, kind: _Kind) -> str:
        choose = self._random.choice
        group, other = choose(self._groups[kind.groups]), choose(self._groups["groups"])
        named = {"P": group[0], "S": group[1], "A": group[2], "Q": other[0]}

        def fill(match: re.Match[str]) -> str:
            return named.get(match[1]) or choose(self._lists[match[1]])

        text = _CHOICE.sub(lambda match: choose(match[1].split("|")), choose(kind.templates))
        text = _SLOT.sub(fill, text)
        # Some write "a idiot"; templates of other sets do too.
        if self._random.random() < 0.7:
            text = _ARTICLE.sub("an ", text)
        if self._random.random() < 0.3 and text[-1].isalpha():
            text += choose([".", "!", "!!", "...", " lol", ", honestly", "."])
        return text


def _part(entries: Sequence[str], *, held_out: bool) -> list[str]:
    """The entries of one side, by their hash."""
    return [
        entry
        for entry in entries
        if (hashlib.sha256(entry.encode()).digest()[0] % 10 < _IN_TEN_HELD_OUT) == held_out
    ]
