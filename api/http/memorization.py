"""`/v1/memorization/search`: was this text in the training data?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.errors import NotReadyError
from api.http.body import JsonRoute
from api.http.guard_schemas import Body, RecitedSpan, SimilarPassage
from api.http.responses import json_errors
from api.service import CompletionService
from api.text_search import search_text
from memorization.policy import MAX_SPAN_TOKENS, MIN_SPAN_TOKENS
from memorization.tracing import UntracedError

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
    recited_tokens: int
    spans: Annotated[list[RecitedSpan], Field(description="In characters of the text.")]
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
            raise NotReadyError(f"text was not looked up: {error}", retry_after_s=1.0) from None
        return SearchResponse.model_validate(found)

    return router
