"""`GET /v1/generations/{id}/…`: what side pipelines found in what was said."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from api.errors import UnknownGenerationError
from api.http.responses import json_errors
from api.outputs.log import Findings
from api.service import CompletionService
from serving.checks import show


class ChoiceFindings(BaseModel):
    """What was found in one choice."""

    model_config = ConfigDict(extra="allow")

    index: int
    status: Annotated[
        Literal["done", "failed", "unavailable"],
        Field(description="failed: no try could process it; unavailable: nobody looked at it."),
    ]


class GenerationFindings(BaseModel):
    """What was found in a generation's choices."""

    id: str
    object: Literal["generation.safety", "generation.memorization"]
    status: Literal["done", "pending"]
    choices: Annotated[list[ChoiceFindings], Field(description="Those that are done.")]


GenerationId = Annotated[
    str,
    Path(description="The id of a completion, or `generation_id` of gRPC.", max_length=200),
]


def generation_routes(service: CompletionService) -> APIRouter:
    """The routes over the service's output log."""
    router = APIRouter(tags=["safety"])
    responses: dict[int | str, dict[str, Any]] = {
        202: {"model": GenerationFindings, "description": "Not all of it is processed yet."},
        **json_errors(400, 404, 503),
    }

    async def answer(generation_id: str, kind: Literal["safety", "memorization"]) -> Response:
        found = await _find(service, generation_id, kind)
        body = GenerationFindings(
            id=generation_id,
            object="generation.safety" if kind == "safety" else "generation.memorization",
            status="done" if _is_done(found) else "pending",
            choices=[
                ChoiceFindings(index=index, **result)
                for index, result in sorted(found.results.items() if found else ())
            ],
        )
        return JSONResponse(body.model_dump(), 200 if body.status == "done" else 202)

    @router.get(
        "/v1/generations/{generation_id}/safety",
        summary="How harmful a generation was",
        response_model=GenerationFindings,
        responses=responses,
    )
    async def get_safety(generation_id: GenerationId) -> Response:
        """Scores of each choice's whole text, once a worker has been at it."""
        return await answer(generation_id, "safety")

    @router.get(
        "/v1/generations/{generation_id}/memorization",
        summary="What a generation recited",
        response_model=GenerationFindings,
        responses=responses,
    )
    async def get_memorization(generation_id: GenerationId) -> Response:
        """Training text in each choice, once a worker has been at it."""
        return await answer(generation_id, "memorization")

    return router


async def _find(service: CompletionService, generation_id: str, kind: str) -> Findings | None:
    """What the log has; None for a generation that is still on its way to it.

    Raises:
        UnknownGenerationError: There is none of that id.
    """
    outputs = service.outputs
    if outputs is None:
        raise UnknownGenerationError("this server keeps no log of generations (--no-output-log)")
    # Asked first: what is on its way now is in the log, or still on its way, when that is asked.
    is_on_its_way = outputs.holds(generation_id)
    found = await asyncio.to_thread(outputs.log.find, kind, generation_id)
    if found is None and not is_on_its_way:
        raise UnknownGenerationError(f"there is no generation {show(generation_id)} in the log")
    return found


def _is_done(found: Findings | None) -> bool:
    return found is not None and len(found.results) == found.choices
