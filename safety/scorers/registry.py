"""Finds a scorer by what users write: `embedded`, `detoxify:original`, `onnx:PATH`, or a URL."""

from __future__ import annotations

from pathlib import Path

from safety.scorers.base import Scorer
from safety.scorers.errors import UnknownScorerError

_KNOWN = (
    "embedded, detoxify:TYPE, detoxify:CHECKPOINT, onnx:TYPE, onnx:CHECKPOINT, "
    "or the URL of a /v1/moderations endpoint"
)


def load_scorer(name: str) -> Scorer:
    """The scorer of a name.

    `embedded` needs nothing. `detoxify:TYPE` has a type of Detoxify's and fetches its weights;
    `detoxify:PATH` reads a checkpoint (see `safety.scorers.detoxify`). `onnx:` takes the same and
    is several times faster. A URL is an OpenAI-style endpoint, such as
    `https://api.openai.com/v1`; its key is read from OPENAI_API_KEY.

    Raises:
        UnknownScorerError: It is none of these.
        CheckpointError: Its weights cannot be read.
    """
    kind, _, rest = name.partition(":")
    if name == "embedded":
        from safety.scorers.embedded import EmbeddedScorer

        return EmbeddedScorer()
    if kind == "embedded" and rest:
        from safety.scorers.embedded import EmbeddedScorer

        return EmbeddedScorer(Path(rest))
    if kind == "detoxify" and rest:
        from safety.scorers.detoxify import DetoxifyScorer

        return DetoxifyScorer.load(rest)
    if kind == "onnx" and rest:
        from safety.scorers.onnx import OnnxScorer

        return OnnxScorer.load(rest)
    if kind in {"http", "https"}:
        from safety.scorers.remote import RemoteScorer

        return RemoteScorer(name)
    raise UnknownScorerError(f"scorer={name!r} is unknown; known are {_KNOWN}")
