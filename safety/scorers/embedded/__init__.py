"""The default scorer: a small network of our own, shipped with its weights."""

from __future__ import annotations

from safety.scorers.embedded.scorer import EmbeddedScorer

__all__ = ["EmbeddedScorer"]
