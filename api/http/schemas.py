"""Requests and responses of the HTTP door, in OpenAI's published shape.

Validation is strict: a number in a string is no number, a boolean is no integer, an unknown field
is an error. A field that is null or absent takes the engine's default, which stands in
`serving.request.SamplingParams` alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, StrictInt, StrictStr, field_validator
from pydantic_core import PydanticCustomError

from api.http.guard_schemas import (
    Body,
    MemorizationOptions,
    MemorizationReport,
    SafetyOptions,
    SafetyReport,
)
from api.limits import MAX_CHOICES_PER_PROMPT, MAX_TEMPERATURE, MAX_TOKEN_ID
from serving.checks import show
from serving.constraint import MAX_REGEX_BYTES
from serving.request import MAX_LOGPROBS, MAX_STOP_STRING_CHARACTERS, MAX_STOP_STRINGS

TokenId: TypeAlias = Annotated[StrictInt, Field(ge=0, le=MAX_TOKEN_ID)]
TokenIds: TypeAlias = Annotated[list[TokenId], Field(min_length=1)]
Prompt: TypeAlias = (
    StrictStr
    | Annotated[list[StrictStr], Field(min_length=1)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1)]
)
StopText: TypeAlias = Annotated[
    StrictStr, Field(min_length=1, max_length=MAX_STOP_STRING_CHARACTERS)
]


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: Annotated[
        bool | None, Field(description="Send one more chunk with the usage before [DONE].")
    ] = None
    include_obfuscation: Annotated[
        Literal[False] | None, Field(description="Only false: no padding is added.")
    ] = None


class JsonSchemaFormat(Body):
    """The schema of a `response_format` of the type json_schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="For people.")]
    description: str | None = None
    json_schema: Annotated[
        dict[str, Any],
        Field(alias="schema", description="JSON schema; properties come in the order given here."),
    ]
    strict: Annotated[
        bool | None, Field(description="Accepted for compatibility: it is always kept to.")
    ] = None


class ResponseFormat(Body):
    """What the completion must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Annotated[
        JsonSchemaFormat | None, Field(description="Required with the type json_schema alone.")
    ] = None


class CompletionRequest(Body):
    """`POST /v1/completions`."""

    model: Annotated[str, Field(description="A model name from /v1/models.")]
    prompt: Annotated[
        Prompt,
        Field(
            description="A text, a list of texts, a list of token ids, or a list of such lists. "
            "An empty text starts a new document."
        ),
    ]
    max_tokens: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="Most tokens to generate; 0 only with echo. Default 16."),
    ] = None
    min_tokens: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="Tokens before which no stop condition ends the text. Default 0."),
    ] = None
    temperature: Annotated[
        Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None,
        Field(description="0 is greedy. Default 1."),
    ] = None
    top_p: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Sample among the likeliest tokens of this total probability."),
    ] = None
    top_k: Annotated[
        Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None,
        Field(description="Sample among this many likeliest tokens; 0 or -1 is all of them."),
    ] = None
    min_p: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Drop tokens less likely than this share of the likeliest."),
    ] = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[
        Annotated[float, Field(ge=0.01, le=100)] | None,
        Field(description="Divides positive and multiplies negative logits of seen tokens."),
    ] = None
    logit_bias: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[0-9]{1,10}$")],
            Annotated[float, Field(ge=-100, le=100)],
        ]
        | None,
        Field(description="Token id (as a string) to what is added to its logit."),
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=-(2**63), le=2**64 - 1)] | None,
        Field(description="The same seed and request give the same text."),
    ] = None
    stop: Annotated[
        StopText | Annotated[list[StopText], Field(max_length=MAX_STOP_STRINGS)] | None,
        Field(description="Texts that end the completion; they are not part of it."),
    ] = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: Annotated[
        bool | None, Field(description="Generate past the end-of-document token.")
    ] = None
    response_format: Annotated[
        ResponseFormat | None,
        Field(description="Generate JSON: any object, or what a JSON schema accepts."),
    ] = None
    guided_regex: Annotated[
        Annotated[str, Field(max_length=MAX_REGEX_BYTES)] | None,
        Field(description="Generate text that this regular expression matches as a whole."),
    ] = None
    n: Annotated[
        Annotated[int, Field(ge=1, le=MAX_CHOICES_PER_PROMPT)] | None,
        Field(description="Completions for each prompt. Default 1."),
    ] = None
    best_of: Annotated[
        Annotated[int, Field(ge=1, le=MAX_CHOICES_PER_PROMPT)] | None,
        Field(description="Generate this many, return the n of highest mean log-probability."),
    ] = None
    echo: Annotated[bool | None, Field(description="Repeat the prompt before the text.")] = None
    logprobs: Annotated[
        Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None,
        Field(description="Log-probabilities of the tokens and of this many alternatives."),
    ] = None
    stream: Annotated[bool | None, Field(description="Send server-sent events.")] = None
    stream_options: StreamOptions | None = None
    suffix: Annotated[None, Field(description="Not supported: the model only continues.")] = None
    user: Annotated[str | None, Field(description="Accepted for compatibility; unused.")] = None
    safety: SafetyOptions | None = None
    memorization: MemorizationOptions | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _check_prompt(cls, value: Any) -> Any:
        """One exact message instead of one for each member of the union."""
        return _checked_prompt(value)

    @field_validator("stop", mode="before")
    @classmethod
    def _check_stop(cls, value: Any) -> Any:
        """As for the prompt."""
        texts = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(text, str) for text in texts):
            raise PydanticCustomError("stop_type", "must be a string or a list of strings")
        if value is not None and not all(0 < len(t) <= MAX_STOP_STRING_CHARACTERS for t in texts):
            raise PydanticCustomError(
                "stop_length",
                "must hold strings of 1 to {limit} characters",
                {"limit": MAX_STOP_STRING_CHARACTERS},
            )
        if len(texts) > MAX_STOP_STRINGS:
            raise PydanticCustomError(
                "stop_count", "must hold at most {limit} strings", {"limit": MAX_STOP_STRINGS}
            )
        return value

    @field_validator("suffix", mode="before")
    @classmethod
    def _check_suffix(cls, value: Any) -> Any:
        if value is not None:
            raise PydanticCustomError("unsupported", "is not supported by this model; leave it out")
        return value


class TokenizeRequest(Body):
    """`POST /tokenize`."""

    model: str | None = None
    prompt: Annotated[
        str,
        Field(
            description="The text to tokenize. A text that is exactly a control token's name in "
            "/tokenizer_info gives that token; within other text such names are plain text."
        ),
    ]
    add_special_tokens: Annotated[
        bool | None, Field(description="Begin with the bos, if the model has one. Default true.")
    ] = None
    return_token_strs: Annotated[
        bool | None, Field(description="Also return the text of each token.")
    ] = None


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: list[TokenId]


class TokenizeResponse(BaseModel):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class TokenizerInfo(BaseModel):
    """What a client needs to know to tokenize here; evaluation harnesses ask for it."""

    bos_token: str | None
    eos_token: str | None
    vocab_size: int


class DetokenizeResponse(BaseModel):
    """The text of tokens."""

    prompt: str


class Logprobs(BaseModel):
    """Log-probabilities, one entry a token; offsets are characters into the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Choice(BaseModel):
    """One completion."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length", "content_filter"]
    stop_reason: Annotated[
        int | str | None,
        Field(
            description="The stop text, token id or guard (content_filter) that ended it; no_token "
            "where memorization.action avoid left none."
        ),
    ]
    safety: Annotated[
        SafetyReport | None, Field(description="Only where the text was watched.")
    ] = None
    memorization: Annotated[
        MemorizationReport | None, Field(description="Only where the text was watched.")
    ] = None


class UsageBlock(BaseModel):
    """Tokens taken in and generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionResponse(BaseModel):
    """The answer without streaming."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBlock


class ModelCard(BaseModel):
    """A model that can be named in requests."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "talipot"
    max_model_len: Annotated[
        int | None, Field(description="Tokens of prompt and completion; null until loaded.")
    ] = None


class ModelList(BaseModel):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """Every error of every route."""

    error: ErrorBody


class Health(BaseModel):
    """The server's state."""

    status: Literal["loading", "compiling", "ready", "stopping", "stopped", "failed"]


def _checked_prompt(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticCustomError(
            "prompt_type",
            "must be a string, a list of strings, a list of token ids or a list of such lists",
        )
    if not value:
        raise PydanticCustomError("prompt_empty", "must hold at least 1 prompt or token id")
    if isinstance(value[0], str):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                _refuse_item(f"[{index}]", item, "must be a string like the items before it")
    elif isinstance(value[0], list):
        for row, tokens in enumerate(value):
            if not isinstance(tokens, list) or not tokens:
                _refuse_item(f"[{row}]", tokens, "must be a list of at least 1 token id")
            _check_token_ids(tokens, f"[{row}]")
    else:
        _check_token_ids(value, "")
    return value


def _check_token_ids(tokens: list[Any], where: str) -> None:
    for index, token in enumerate(tokens):
        if type(token) is not int or not 0 <= token <= MAX_TOKEN_ID:
            _refuse_item(f"{where}[{index}]", token, "must be a token id, an integer of at least 0")


def _refuse_item(where: str, item: Any, rule: str) -> None:
    raise PydanticCustomError(
        "prompt_item",
        "prompt{where}={item} {rule}",
        {"where": where, "item": show(item), "rule": rule},
    )
