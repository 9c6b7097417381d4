"""What can go wrong with a scorer.

ScorerError
├── CheckpointError   weights missing, damaged, or not of this scorer
├── UnknownScorerError   no scorer of that name
└── EndpointError     a remote scorer did not answer, or not as it should
"""

from __future__ import annotations


class ScorerError(Exception):
    """Base of all; its text is for people."""

    code = "scorer_error"


class CheckpointError(ScorerError):
    """Weights are missing, damaged, or not of this scorer."""

    code = "scorer_checkpoint"


class UnknownScorerError(ScorerError):
    """No scorer has that name."""

    code = "unknown_scorer"


class EndpointError(ScorerError):
    """A remote scorer did not answer, or not as it should."""

    code = "scorer_endpoint"
