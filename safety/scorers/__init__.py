"""Scorers: models that say how harmful a text is."""

from __future__ import annotations

from safety.scorers.base import Scorer


def load_scorer(name: str) -> Scorer:
    """The scorer of that name.

    Raises:
        ValueError: There is none of that name.
    """
    raise ValueError(f"scorer={name!r} is not known")
