"""The model in this process: the engine, without a door between."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from api.audit.generators.found import FoundModel
from api.audit.generators.patience import Patience, TransientError
from api.engine import load_engine, model_name
from api.guards import Guards
from api.host import EngineHost
from api.limits import MAX_CHOICES_PER_PROMPT
from api.metrics import ServingMetrics
from api.scoring import ScoreCall, ScoreItem, score
from api.service import CompletionCall, CompletionService
from model.checkpoint import resolve_model
from safety.text_generator import Continuation, GenerationRefusedError, Sampling
from serving.config import EngineConfig
from serving.errors import OverloadedError, RequestError
from serving.request import SamplingParams

_MODEL_FILES = ("*.safetensors", "config.json", "tokenizer.model", "tokenizer.json")
_BLOCK_BYTES = 1 << 20


class EngineGenerator:
    """`TextGenerator` over a running engine."""

    def __init__(self, service: CompletionService, version: str, patience: Patience) -> None:
        """Continuations are the same as through any door of a server with this model."""
        self._service = service
        self._patience = patience
        self._ids = itertools.count()
        self._version = version

    @property
    def name(self) -> str:
        """The model's name."""
        return self._service.host.model_name

    @property
    def version(self) -> str:
        """Hash of its files, and in which numbers it computes."""
        return self._version

    async def generate(
        self, prompts: Sequence[str], params: Sampling
    ) -> list[tuple[Continuation, ...]]:
        """As `TextGenerator.generate`."""
        return [
            await self._patience.call(functools.partial(self._continue, prompt, params))
            for prompt in prompts
        ]

    async def loglikelihood(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[float]:
        """As `TextGenerator.loglikelihood`."""
        pairs = zip(prompts, continuations, strict=True)
        items = tuple(ScoreItem(prompt=prompt, text=text) for prompt, text in pairs)

        async def attempt() -> list[float]:
            call = ScoreCall(model=self.name, items=items)
            with _refusals():
                scores, _ = await score(self._service, call, f"audit-{next(self._ids)}")
            return [one.log_likelihood for one in scores]

        return await self._patience.call(attempt)

    async def _continue(self, prompt: str, params: Sampling) -> tuple[Continuation, ...]:
        with _refusals():
            call = CompletionCall(
                model=self.name, prompts=(prompt,), params=_sampling(params), n=params.n
            )
            requests = await self._service.plan(call, f"audit-{next(self._ids)}")
            completion = await self._service.complete(call, requests)
        return tuple(
            Continuation(
                text=choice.text,
                finish_reason=choice.finish_reason,
                num_tokens=choice.usage.completion_tokens,
            )
            for choice in completion.choices
        )


async def find_engine(
    model: str, config: EngineConfig, patience: Patience, note: Callable[[str], None]
) -> FoundModel:
    """A model by its name or folder; of its files only the hash is taken.

    Raises:
        CheckpointError: The model is not found, or its config is damaged.
    """
    name = model_name(model)
    digest = await asyncio.to_thread(_digest, resolve_model(model))
    version = f"sha256 {digest}, {config.dtype}, quantize {config.quantize}"

    @contextlib.asynccontextmanager
    async def ready() -> AsyncIterator[EngineGenerator]:
        note(f"loading and compiling {model}")
        host = EngineHost(lambda: load_engine(model, config), name)
        try:
            await host.start()
            service = CompletionService(
                host, ServingMetrics(host.stats), Guards.off(), max_choices=MAX_CHOICES_PER_PROMPT
            )
            yield EngineGenerator(service, version, patience)
        finally:
            await host.stop()

    return FoundModel(name=name, version=version, ready=ready)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The engine's errors as a caller of `TextGenerator` knows them."""
    try:
        yield
    except OverloadedError as error:
        raise TransientError(str(error), error.retry_after_s) from None
    except RequestError as error:
        raise GenerationRefusedError(str(error)) from None


def _sampling(params: Sampling) -> SamplingParams:
    return SamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        seed=params.seed,
        stop=params.stop,
    )


def _digest(folder: Path) -> str:
    """16 hex digits of the SHA-256 over names and contents of all that a model consists of."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()[:16]
