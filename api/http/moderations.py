"""`POST /v1/moderations`: OpenAI's shape over the server's scorer."""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter
from pydantic import BaseModel, Field, StrictStr, field_validator
from pydantic_core import PydanticCustomError

from api.errors import NotReadyError
from api.http.body import JsonRoute
from api.http.guard_schemas import Body
from api.http.responses import json_errors
from api.service import CompletionService
from safety.scorers.base import Scorer
from safety.scoring_thread import Scores, ScoringThread, UnscoredError
from serving.checks import show
from serving.errors import RequestError, UnknownModelError


class TextPart(Body):
    """A text in the form that OpenAI's multimodal models take."""

    type: Literal["text"]
    text: str


Input: TypeAlias = (
    StrictStr
    | Annotated[list[StrictStr], Field(min_length=1)]
    | Annotated[list[TextPart], Field(min_length=1)]
)


class ModerationRequest(Body):
    """What to score."""

    input: Annotated[Input, Field(description="A text, a list of texts, or a list of text parts.")]
    model: Annotated[str | None, Field(description="The scorer's name; it need not be given.")] = (
        None
    )

    @field_validator("input", mode="before")
    @classmethod
    def _check_input(cls, value: Any) -> Any:
        """One exact message instead of one for each member of the union."""
        items = value if isinstance(value, list) else [value]
        if not items:
            raise PydanticCustomError("input_empty", "must hold at least 1 text")
        is_parts = isinstance(items[0], dict)
        for item in items:
            if is_parts and isinstance(item, dict) and item.get("type") not in (None, "text"):
                raise PydanticCustomError("input_type", "must hold parts of type 'text' alone")
            if not isinstance(item, dict if is_parts else str):
                raise PydanticCustomError(
                    "input_type", "must be a text, a list of texts or a list of text parts"
                )
        return value


class Moderation(BaseModel):
    """One text's categories, which are the scorer's labels."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationResponse(BaseModel):
    """One result for each text, in order."""

    id: str
    model: Annotated[str, Field(description="Name and version of the scorer.")]
    results: list[Moderation]


def moderation_routes(service: CompletionService) -> APIRouter:
    """The route over the service's scorer and threshold."""
    router = APIRouter(route_class=JsonRoute, tags=["safety"])

    @router.post(
        "/v1/moderations",
        summary="Score texts",
        responses=json_errors(400, 404, 413, 415, 503),
    )
    async def create_moderation(body: ModerationRequest) -> ModerationResponse:
        """How harmful each text is, by label; flagged where one reaches the server's threshold."""
        scoring = service.guards.scoring
        if scoring is None:
            raise RequestError("this server has no scorer (--scorer none)", param="model")
        texts = _texts(body.input)
        service.check_items("input", len(texts))
        scorer = await asyncio.to_thread(scoring.load)
        if body.model not in (None, scorer.name):
            raise UnknownModelError(
                f"model={show(body.model)} is not the scorer here; it is {scorer.name!r}",
                param="model",
            )
        threshold = service.guards.safety.threshold
        return ModerationResponse(
            id=f"modr-{uuid.uuid4().hex}",
            model=f"{scorer.name} {scorer.version}",
            results=[
                _moderation(scorer, scores, threshold) for scores in await _score(scoring, texts)
            ],
        )

    return router


def _texts(given: Input) -> list[str]:
    items = [given] if isinstance(given, str) else given
    return [item if isinstance(item, str) else item.text for item in items]


async def _score(scoring: ScoringThread, texts: list[str]) -> list[Scores]:
    found: list[Scores] = []
    for answer in await scoring.submit(texts):
        if isinstance(answer, UnscoredError):
            raise NotReadyError(f"input was not scored: {answer}", retry_after_s=1.0)
        found.append(answer)
    return found


def _moderation(scorer: Scorer, scores: Scores, threshold: float) -> Moderation:
    by_label = dict(zip(scorer.labels, scores.tolist(), strict=True))
    categories = {label: score >= threshold for label, score in by_label.items()}
    return Moderation(
        flagged=any(categories.values()),
        categories=categories,
        category_scores=by_label,
        category_applied_input_types={label: ["text"] for label in by_label},
    )
