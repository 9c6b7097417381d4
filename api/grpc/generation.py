"""`talipot.v1.Generation`: each call becomes one of `api.service`, the same that HTTP uses."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc.aio

from api.config import ServeConfig
from api.grpc.batch import BatchContext, BatchStream
from api.grpc.errors import answering
from api.grpc.requests import to_call, to_score_call
from api.grpc.responses import MessageWriter, to_usage
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1 import generation_pb2_grpc
from api.keys import ApiKeys
from api.scoring import score
from api.service import CompletionService

SERVICE: str = pb.DESCRIPTOR.services_by_name["Generation"].full_name

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Generation(generation_pb2_grpc.GenerationServicer):
    """The calls over `service`; an exception inside one becomes its status."""

    def __init__(
        self, service: CompletionService, config: ServeConfig, keys: ApiKeys | None = None
    ) -> None:
        """`config` has the limits that `GetModel` tells; `keys` say who may loosen the guards."""
        self._service = service
        self._config = config
        self._keys = keys

    async def Generate(  # noqa: N802 (the names in the proto)
        self, request: pb.GenerateRequest, context: _Context
    ) -> None:
        """Send a prompt's continuation as it comes."""
        async with answering(context):
            call = to_call(
                request,
                served=self._service.host.model_name,
                time_left_s=_time_left_s(context),
                is_streamed=True,
                may_loosen=self._may_loosen(context),
            )
            call_id = _new_id()
            requests = await self._service.plan(call, call_id)
            writer = self._writer(call_id)
            async with aclosing(self._service.stream(call, requests)) as stream:
                async for index, delta in stream:
                    await context.write(writer.delta(index, delta))

    async def GenerateBatch(  # noqa: N802
        self, requests: object, context: BatchContext
    ) -> None:
        """Answer a stream of requests."""
        async with answering(context):
            _ = self._service.host.engine  # says why, when there is none

            may_loosen = self._may_loosen(context)

            async def answer(request: pb.GenerateRequest) -> pb.GenerateResult:
                return await self._run(request, _time_left_s(context), may_loosen=may_loosen)

            limit = self._config.max_batch_in_flight
            await BatchStream(context, answer, max_in_flight=limit).run()

    async def Score(  # noqa: N802
        self, request: pb.ScoreRequest, context: _Context
    ) -> pb.ScoreResponse:
        """Log-probabilities of given texts."""
        async with answering(context):
            call = to_score_call(
                request,
                served=self._service.host.model_name,
                time_left_s=_time_left_s(context),
            )
            scores, usage = await score(self._service, call, _new_id())
            writer = self._writer()
            return pb.ScoreResponse(
                scores=[writer.score(found) for found in scores], usage=to_usage(usage)
            )

    async def Tokenize(  # noqa: N802
        self, request: pb.TokenizeRequest, context: _Context
    ) -> pb.TokenizeResponse:
        """Texts to token ids."""
        async with answering(context):
            self._service.check_model(request.model or None)
            self._service.check_items("texts", len(request.texts))
            bos = self._service.host.tokenizer.bos_id
            is_asked = request.add_special_tokens or not request.HasField("add_special_tokens")
            start = (bos,) if is_asked and bos is not None else ()
            response = pb.TokenizeResponse()
            for text in request.texts:
                token_ids = (*start, *await self._service.tokens.encode(text))
                names = self._texts(token_ids) if request.return_token_texts else ()
                response.texts.add(token_ids=token_ids, token_texts=names)
            return response

    async def GetModel(  # noqa: N802
        self, request: pb.GetModelRequest, context: _Context
    ) -> pb.Model:
        """What is served, and this server's limits."""
        async with answering(context):
            self._service.check_model(request.name or None)
            host = self._service.host
            model = pb.Model(
                name=host.model_name,
                phase=f"PHASE_{host.phase.upper()}",
                limits=pb.Limits(
                    max_model_len=host.max_model_len,
                    max_choices=self._config.max_choices,
                    max_batch_in_flight=self._config.max_batch_in_flight,
                    max_message_bytes=self._config.max_body_bytes,
                ),
            )
            if host.phase == "ready":
                tokenizer = host.tokenizer
                model.tokenizer.CopyFrom(
                    pb.Tokenizer(
                        vocab_size=tokenizer.vocab_size,
                        bos_token_id=tokenizer.bos_id,
                        eos_token_ids=tokenizer.eos_ids,
                    )
                )
            return model

    async def _run(
        self, request: pb.GenerateRequest, time_left_s: float | None, *, may_loosen: bool
    ) -> pb.GenerateResult:
        call = to_call(
            request,
            served=self._service.host.model_name,
            time_left_s=time_left_s,
            is_streamed=False,
            may_loosen=may_loosen,
        )
        call_id = _new_id()
        requests = await self._service.plan(call, call_id)
        completion = await self._service.complete(call, requests)
        return self._writer(call_id).result(call.model, completion)

    def _may_loosen(self, context: _Context) -> bool:
        """Whether the caller's API key, which was accepted already, may loosen the guards."""
        if self._keys is None:
            return False
        metadata = dict(context.invocation_metadata() or ())
        return self._keys.check_authorization(str(metadata.get("authorization", "")))

    def _writer(self, call_id: str = "") -> MessageWriter:
        return MessageWriter(self._service.host.tokenizer, call_id)

    def _texts(self, token_ids: Sequence[int]) -> list[str]:
        writer = self._writer()
        return [writer.token_text(token_id) for token_id in token_ids]


def _new_id() -> str:
    return f"grpc-{uuid.uuid4().hex}"


def _time_left_s(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    """Seconds until the call's own deadline; None if it has none."""
    left: float | None = context.time_remaining()
    return left
