"""`/v1/memorization/search`: was this text in the training data?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.errors import SideError
from api.http.body import JsonRoute
from api.http.guard_schemas import Body, RecitedSpan, SimilarPassage
from api.http.responses import json_errors
from api.service import CompletionService
from api.text_search import search_text
from memorization.errors import IndexUnavailableError
from memorization.policy import MAX_SPAN_TOKENS, MIN_SPAN_TOKENS
from memorization.tracing import UntracedError

_RETRY_AFTER_S = 1.0

MinTokens = Annotated[int, Field(ge=MIN_SPAN_TOKENS, le=MAX_SPAN_TOKENS)]


class SearchRequest(Body):
    """A text to look for."""

    text: str
    min_tokens: Annotated[
        MinTokens | None,
        Field(description="Consecutive training tokens that count. Default: the server's."),
    ] = None


class SearchResponse(BaseModel):
    """What of the text stands in the training data."""

    min_tokens: int
    tokens: Annotated[int, Field(description="Tokens of the text.")]
    recited_tokens: Annotated[
        int | None, Field(description="null where the index finds near duplicates alone.")
    ]
    spans: Annotated[
        list[RecitedSpan] | None,
        Field(description="In characters of the text; null where the index finds no runs."),
    ]
    near_duplicates: Annotated[
        list[SimilarPassage] | None, Field(description="null where the index has none to tell.")
    ]


def memorization_routes(service: CompletionService) -> APIRouter:
    """The route over the service's index."""
    router = APIRouter(route_class=JsonRoute, tags=["memorization"])

    # No GET: texts in addresses end up in the logs of servers and proxies.
    @router.post(
        "/v1/memorization/search",
        summary="Was this text in the training data?",
        responses=json_errors(400, 413, 415, 503),
    )
    async def search(body: SearchRequest) -> SearchResponse:
        """Runs of the text that the training data has word for word, and where."""
        try:
            found = await search_text(service, body.text, body.min_tokens)
        except UntracedError as error:
            is_away = error.code == IndexUnavailableError.code
            raise SideError(
                f"text was not looked up: {error}",
                code=error.code,
                retry_after_s=_RETRY_AFTER_S if is_away else None,
            ) from None
        return SearchResponse.model_validate(found)

    return router
