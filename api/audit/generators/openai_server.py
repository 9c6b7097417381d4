"""A model behind any HTTP endpoint that speaks OpenAI's completions API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import httpx

from api.audit.generators.found import FoundModel
from api.audit.generators.patience import Patience, TransientError
from api.errors import AuditError
from safety.text_generator import Continuation, GenerationRefusedError, Sampling

_TIMEOUT_S = 600.0
_REFUSED = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


class OpenAIGenerator:
    """`TextGenerator` over `/v1/completions`.

    Log-likelihoods are read as lm-evaluation-harness reads them: the text is echoed with its
    log-probabilities. What begins a document is taken from `/tokenizer_info` where the server has
    that route; elsewhere the first token of a text without a prompt does not count.
    """

    def __init__(self, client: httpx.AsyncClient, patience: Patience) -> None:
        """Call `find` and `wait_ready` before anything else."""
        self._client = client
        self._patience = patience
        self._name = ""
        self._start_id: int | None = None

    @property
    def name(self) -> str:
        """What the endpoint calls the model."""
        return self._name

    @property
    def version(self) -> str:
        """The endpoint does not tell its weights."""
        return "as served over HTTP"

    async def find(self, model: str | None) -> None:
        """Wait for the endpoint and find the model that it serves, which it may still load.

        Raises:
            AuditError: It does not serve `model`, or is not there for too long.
        """
        answer = await self._patience.call(lambda: self._get("models"))
        served = [str(one["id"]) for one in answer.get("data", [])]
        if model is not None and model not in served:
            raise AuditError(f"model={model!r} is not served there; served: {', '.join(served)}")
        if model is None and not served:
            raise AuditError(f"{self._client.base_url} serves no model")
        self._name = model or served[0]

    async def wait_ready(self) -> None:
        """Wait until the model is loaded, and ask what begins a document.

        Raises:
            AuditError: The endpoint is not there for too long.
        """
        self._start_id = await self._document_start()

    async def generate(
        self, prompts: Sequence[str], params: Sampling
    ) -> list[tuple[Continuation, ...]]:
        """As `TextGenerator.generate`."""
        return [await self._continue(prompt, params) for prompt in prompts]

    async def loglikelihood(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[float]:
        """As `TextGenerator.loglikelihood`."""
        found: list[float] = []
        for prompt, text in zip(prompts, continuations, strict=True):
            if prompt or self._start_id is None:
                choice = await self._echoed(prompt + text)
                found.append(_sum_after(choice, len(prompt), len(prompt) + len(text)))
            else:
                tokens = await self._tokenize(text)
                choice = await self._echoed([self._start_id, *tokens])
                logprobs = choice["logprobs"]["token_logprobs"][1 : len(tokens) + 1]
                found.append(sum(logprobs))
        return found

    async def _continue(self, prompt: str, params: Sampling) -> tuple[Continuation, ...]:
        body: dict[str, Any] = {
            "prompt": prompt,
            "n": params.n,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": params.seed,
        }
        if params.top_k:
            body["top_k"] = params.top_k  # not in OpenAI's own API; servers of open models have it
        if params.stop:
            body["stop"] = list(params.stop)
        answer = await self._post("v1/completions", body)
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        if len(choices) != params.n:
            raise AuditError(f"the endpoint gave {len(choices)} choices for n={params.n}")
        # The API counts the tokens of all choices together.
        total = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        share, rest = divmod(total, params.n)
        return tuple(
            Continuation(
                text=choice["text"],
                finish_reason=choice["finish_reason"] or "stop",
                num_tokens=share + (index < rest),
            )
            for index, choice in enumerate(choices)
        )

    async def _echoed(self, prompt: str | list[int]) -> dict[str, Any]:
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        answer = await self._post("v1/completions", body)
        choice: dict[str, Any] = answer["choices"][0]
        if not choice.get("logprobs"):
            raise AuditError(
                f"{self._client.base_url} gives no log-probabilities of the prompt (echo with "
                "logprobs), which this audit needs"
            )
        return choice

    async def _document_start(self) -> int | None:
        """The token that begins a document, where the server tells it."""
        try:
            # A server may name its models while it still loads them, so this may have to wait too.
            info = await self._patience.call(lambda: self._get("/tokenizer_info"))
            token = info.get("bos_token") or info.get("eos_token")
            ask = {"prompt": token, "add_special_tokens": False}
            answer = await self._patience.call(lambda: self._send("POST", "/tokenize", ask))
            (found,) = answer["tokens"]
        except (AuditError, GenerationRefusedError, KeyError, ValueError):
            return None  # no such routes: not every server has them
        return int(found)

    async def _tokenize(self, text: str) -> list[int]:
        ask = {"prompt": text, "add_special_tokens": False}
        answer = await self._patience.call(lambda: self._send("POST", "/tokenize", ask))
        return [int(token) for token in answer["tokens"]]

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._send("GET", path if path.startswith("/") else f"/v1/{path}", None)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        full = {"model": self._name, **body}
        return await self._patience.call(lambda: self._send("POST", f"/{path}", full))

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One attempt, its errors sorted by what may help."""
        where = f"{self._client.base_url}".rstrip("/") + path
        try:
            response = await self._client.request(method, path, json=body)
        except UnicodeEncodeError:
            raise GenerationRefusedError("prompt has a lone surrogate: no Unicode") from None
        except httpx.TransportError as error:
            raise TransientError(f"{where}: {type(error).__name__}: {error}") from None
        status = response.status_code
        if status in _TRANSIENT or (
            status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED
        ):
            told = response.headers.get("retry-after", "")
            told_s = float(told) if told.isdigit() else None
            raise TransientError(f"{where}: {status}: {_message(response)}", told_s)
        if status in _REFUSED:
            raise GenerationRefusedError(_message(response))
        if status != HTTPStatus.OK:
            raise AuditError(f"{where}: {status}: {_message(response)}")
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise AuditError(f"{where} answers no JSON: is it an OpenAI-compatible API?") from None
        return answer


@contextlib.asynccontextmanager
async def find_openai(
    url: str, model: str | None, api_key: str | None, max_in_flight: int, patience: Patience
) -> AsyncIterator[FoundModel]:
    """The model behind an endpoint; `url` with or without `/v1`.

    Raises:
        AuditError: It is not there for too long, or does not serve `model`.
    """
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(
        base_url=url.rstrip("/").removesuffix("/v1"),
        headers=headers,
        timeout=_TIMEOUT_S,
        limits=httpx.Limits(max_connections=max_in_flight),
    ) as client:
        generator = OpenAIGenerator(client, patience)
        await generator.find(model)

        @contextlib.asynccontextmanager
        async def ready() -> AsyncIterator[OpenAIGenerator]:
            await generator.wait_ready()
            yield generator

        yield FoundModel(name=generator.name, version=generator.version, ready=ready)


def _sum_after(choice: dict[str, Any], start: int, end: int) -> float:
    """Sum of the log-probabilities of the tokens that reach beyond `start` and begin before `end`.

    A token that spans the border of prompt and continuation counts, as in Talipot's own scoring.
    """
    offsets = choice["logprobs"]["text_offset"]
    values = choice["logprobs"]["token_logprobs"]
    ends = [*offsets[1:], end]
    return float(
        sum(
            value
            for value, low, high in zip(values, offsets, ends, strict=True)
            if value is not None and high > start and low < end
        )
    )


def _message(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
