"""What requests ask of the guards, and what the guards report, in the HTTP door's shape."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.guard_fields import MAX_LABELS
from memorization.guard import MemorizationVerdict
from memorization.policy import MAX_SPAN_TOKENS, MIN_SPAN_TOKENS, MemorizationAction
from safety.guard import SafetyVerdict
from safety.policy import MAX_WINDOW_TOKENS, MIN_WINDOW_TOKENS, SafetyAction


class Body(BaseModel):
    """Base of request bodies: strict, closed, finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class SafetyOptions(Body):
    """How the text is watched; never less strictly than the server's own policy."""

    action: Annotated[
        SafetyAction,
        Field(description="annotate scores; redact blacks out; block ends the text before."),
    ]
    threshold: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Score from which a label counts. Default: the server's."),
    ] = None
    labels: Annotated[
        Annotated[list[str], Field(min_length=1, max_length=MAX_LABELS)] | None,
        Field(description="Labels that count. Default: the server's."),
    ] = None
    window_tokens: Annotated[
        Annotated[int, Field(ge=MIN_WINDOW_TOKENS, le=MAX_WINDOW_TOKENS)] | None,
        Field(description="Most tokens held back until they are scored. Default: the server's."),
    ] = None
    prompt: Annotated[bool | None, Field(description="Score the prompt too.")] = None


class MemorizationOptions(Body):
    """How the text is compared with the training data; never less strictly than the policy."""

    action: Annotated[
        MemorizationAction,
        Field(
            description="annotate names what was recited; block ends the text before; avoid never "
            "generates so many training tokens in a row."
        ),
    ]
    min_tokens: Annotated[
        Annotated[int, Field(ge=MIN_SPAN_TOKENS, le=MAX_SPAN_TOKENS)] | None,
        Field(description="Consecutive training tokens that count. Default: the server's."),
    ] = None


class ScorerName(BaseModel):
    """Which scorer, and which weights: scores of two are never comparable."""

    name: str
    version: str


class SafetySpan(BaseModel):
    """A piece that reached the threshold, in characters of the choice's text before a block."""

    start: int
    end: int
    label: str
    score: float


class PromptSafety(BaseModel):
    """The prompt's own scores."""

    flagged: bool
    label: Annotated[str | None, Field(description="The label that scored highest.")]
    scores: dict[str, float] | None


class SafetyReport(BaseModel):
    """What the safety guard found; scores are the highest of any window."""

    action: SafetyAction
    verdict: SafetyVerdict
    scores: Annotated[dict[str, float] | None, Field(description="null: not all was scored.")]
    threshold: float
    spans: list[SafetySpan]
    reasons: list[str]
    prompt: PromptSafety | None
    scorer: ScorerName


class TrainingPlace(BaseModel):
    """Where a recited run stands in the training data."""

    document: str
    title: str
    source: str
    offset: Annotated[int, Field(description="First token, from the document's start.")]


class RecitedSpan(BaseModel):
    """A run of training tokens in the text."""

    start: Annotated[int, Field(description="In characters of the choice's text, before a block.")]
    end: int
    tokens: Annotated[int, Field(description="Those that are known to match.")]
    max_tokens: Annotated[
        int, Field(description="Those that may match, where an index knows ends only roughly.")
    ]
    count: Annotated[int, Field(description="How often it stands in the training data.")]
    documents: list[TrainingPlace]


class SimilarPassage(BaseModel):
    """A passage of the training data that resembles the text without being the same."""

    document: str
    title: str
    source: str
    similarity: float


class MemorizationReport(BaseModel):
    """What the memorization guard found."""

    action: MemorizationAction
    verdict: MemorizationVerdict
    min_tokens: int
    tokens: Annotated[int, Field(description="Generated tokens that were compared.")]
    recited_tokens: Annotated[int | None, Field(description="null: not all was compared.")]
    spans: list[RecitedSpan]
    near_duplicates: Annotated[
        list[SimilarPassage] | None, Field(description="null where the index has none to tell.")
    ]
    reasons: list[str]
