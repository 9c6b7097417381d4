"""`/v1/models`, `/tokenize` and `/detokenize`: what is served, and its tokens."""

from __future__ import annotations

from fastapi import APIRouter

from api.http.body import JsonRoute
from api.http.responses import json_errors
from api.http.schemas import (
    DetokenizeRequest,
    DetokenizeResponse,
    ModelCard,
    ModelList,
    TokenizeRequest,
    TokenizeResponse,
    TokenizerInfo,
)
from api.logprobs import token_text
from api.service import CompletionService


def model_routes(service: CompletionService) -> APIRouter:
    """The routes over `service`."""
    router = APIRouter(route_class=JsonRoute, tags=["models"])

    def card() -> ModelCard:
        host = service.host
        return ModelCard(
            id=host.model_name, created=host.created_s, max_model_len=host.max_model_len
        )

    @router.get("/v1/models", summary="List the models")
    async def list_models() -> ModelList:
        """The models that can be named in requests; this server has one."""
        return ModelList(data=[card()])

    @router.get(
        "/v1/models/{model_id:path}", summary="Describe a model", responses=json_errors(404)
    )
    async def get_model(model_id: str) -> ModelCard:
        """One model by its id."""
        service.check_model(model_id)
        return card()

    return router


def token_routes(service: CompletionService) -> APIRouter:
    """The tokenizer's routes over `service`."""
    router = APIRouter(route_class=JsonRoute, tags=["tokens"])
    errors = json_errors(400, 404, 413, 415, 503)

    @router.post("/tokenize", summary="Text to token ids", responses=errors)
    async def tokenize(body: TokenizeRequest) -> TokenizeResponse:
        """The tokens that a completion's prompt of this text would have."""
        service.check_model(body.model)
        engine = service.host.engine
        control = service.tokens.control_tokens().get(body.prompt)
        tokens = await service.tokens.encode(body.prompt) if control is None else [control]
        bos = engine.tokenizer.bos_id
        if body.add_special_tokens is not False and bos is not None:
            tokens = [bos, *tokens]
        names = None
        if body.return_token_strs:
            names = [token_text(engine.tokenizer, token) for token in tokens]
        return TokenizeResponse(
            count=len(tokens),
            max_model_len=engine.max_model_len,
            tokens=tokens,
            token_strs=names,
        )

    @router.post("/detokenize", summary="Token ids to text", responses=errors)
    async def detokenize(body: DetokenizeRequest) -> DetokenizeResponse:
        """The text of tokens; control tokens have none."""
        service.check_model(body.model)
        return DetokenizeResponse(prompt=await service.tokens.decode(body.tokens))

    @router.get(
        "/tokenizer_info", summary="Special tokens of the tokenizer", responses=json_errors(503)
    )
    async def tokenizer_info() -> TokenizerInfo:
        """Names of bos and eos; lm-eval's remote tokenizer needs this beside /tokenize."""
        tokenizer = service.host.tokenizer
        bos, eos = tokenizer.bos_id, tokenizer.eos_ids
        return TokenizerInfo(
            bos_token=None if bos is None else tokenizer.id_to_piece(bos),
            eos_token=tokenizer.id_to_piece(eos[0]) if eos else None,
            vocab_size=tokenizer.vocab_size,
        )

    return router
