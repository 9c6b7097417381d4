"""A model behind Talipot's gRPC door."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import grpc.aio

from api.audit.generators.found import FoundModel
from api.audit.generators.patience import Patience, TransientError
from api.batch import retry
from api.errors import AuditError
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1.generation_pb2_grpc import GenerationStub
from safety.text_generator import Continuation, GenerationRefusedError, Sampling

_T = TypeVar("_T")
_REASONS = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class GrpcGenerator:
    """`TextGenerator` over a server's gRPC door."""

    def __init__(
        self, stub: GenerationStub, target: str, api_key: str | None, patience: Patience
    ) -> None:
        """Call `find` and `wait_ready` before anything else."""
        self._stub = stub
        self._target = target
        self._metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        self._patience = patience
        self._name = ""

    @property
    def name(self) -> str:
        """What the server calls its model."""
        return self._name

    @property
    def version(self) -> str:
        """The server does not tell its weights."""
        return "as served over gRPC"

    async def find(self, model: str | None) -> None:
        """Wait for the server and ask for its model, which it may still load.

        Raises:
            AuditError: It serves another model, or is not there for too long.
        """
        try:
            self._name = (await self._patience.call(lambda: self._model(model or ""))).name
        except GenerationRefusedError as error:
            raise AuditError(str(error)) from None

    async def wait_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            AuditError: The server is not there for too long.
        """

        async def attempt() -> None:
            found = await self._model(self._name)
            if found.phase in (pb.PHASE_LOADING, pb.PHASE_COMPILING):
                raise TransientError(f"{self._target}: the model is still loading")

        await self._patience.call(attempt)

    async def generate(
        self, prompts: Sequence[str], params: Sampling
    ) -> list[tuple[Continuation, ...]]:
        """As `TextGenerator.generate`."""
        return [await self._continue(_request(prompt, params)) for prompt in prompts]

    async def loglikelihood(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[float]:
        """As `TextGenerator.loglikelihood`."""
        pairs = zip(prompts, continuations, strict=True)
        request = pb.ScoreRequest(
            items=[
                pb.ScoreItem(prompt=pb.Prompt(text=prompt), text=pb.Prompt(text=text))
                for prompt, text in pairs
            ]
        )

        async def attempt() -> list[float]:
            response = await self._stub.Score(request, metadata=self._metadata)
            return [one.log_likelihood for one in response.scores]

        return await self._patience.call(lambda: self._called(attempt))

    async def _model(self, name: str) -> pb.Model:
        request = pb.GetModelRequest(name=name)

        async def attempt() -> pb.Model:
            found: pb.Model = await self._stub.GetModel(request, metadata=self._metadata)
            return found

        return await self._called(attempt)

    async def _continue(self, request: pb.GenerateRequest) -> tuple[Continuation, ...]:
        async def attempt() -> tuple[Continuation, ...]:
            call = self._stub.Generate(request, metadata=self._metadata)
            texts = [""] * request.n
            ends: dict[int, pb.GenerateResponse] = {}
            async for part in call:
                texts[part.index] += part.text
                if part.finish_reason:
                    ends[part.index] = part
            return tuple(
                Continuation(
                    text=text,
                    finish_reason=_REASONS[ends[index].finish_reason],
                    num_tokens=ends[index].usage.completion_tokens,
                )
                for index, text in enumerate(texts)
            )

        return await self._patience.call(lambda: self._called(attempt))

    async def _called(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """One attempt, its errors sorted by what may help."""
        try:
            return await attempt()
        except grpc.aio.AioRpcError as error:
            reason = f"{self._target}: {error.code().name}: {error.details()}"
            if retry.is_transient_call(error):
                raise TransientError(reason, retry.told_by_call(error)) from None
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                raise GenerationRefusedError(reason) from None
            raise AuditError(reason) from None


@contextlib.asynccontextmanager
async def find_grpc(
    target: str, model: str | None, api_key: str | None, patience: Patience
) -> AsyncIterator[FoundModel]:
    """The model behind HOST:PORT.

    Raises:
        AuditError: The server is not there for too long, or serves another model.
    """
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        generator = GrpcGenerator(GenerationStub(channel), target, api_key, patience)
        await generator.find(model)

        @contextlib.asynccontextmanager
        async def ready() -> AsyncIterator[GrpcGenerator]:
            await generator.wait_ready()
            yield generator

        yield FoundModel(name=generator.name, version=generator.version, ready=ready)


def _request(prompt: str, params: Sampling) -> pb.GenerateRequest:
    try:
        return pb.GenerateRequest(
            prompt=pb.Prompt(text=prompt),
            n=params.n,
            params=pb.SamplingParams(
                max_tokens=params.max_tokens,
                temperature=params.temperature,
                top_k=params.top_k,
                top_p=params.top_p,
                seed=params.seed,
                stop=list(params.stop),
            ),
        )
    except UnicodeEncodeError:
        raise GenerationRefusedError("prompt has a lone surrogate, which is no Unicode") from None
