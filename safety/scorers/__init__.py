"""Scorers of texts, and how to get one."""

from __future__ import annotations

from safety.scorers.base import TOXICITY_LABELS, Scorer
from safety.scorers.ensemble import Ensemble
from safety.scorers.errors import (
    CheckpointError,
    EndpointError,
    ScorerError,
    UnknownScorerError,
)
from safety.scorers.registry import load_scorer

__all__ = [
    "TOXICITY_LABELS",
    "CheckpointError",
    "EndpointError",
    "Ensemble",
    "Scorer",
    "ScorerError",
    "UnknownScorerError",
    "load_scorer",
]
