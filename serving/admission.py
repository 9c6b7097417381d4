"""Checks of a request against the model that shall run it."""

from __future__ import annotations

from collections.abc import Iterable

from serving.errors import ContextLengthError, RequestError
from serving.request import GenerationRequest


def check_request(
    request: GenerationRequest, *, vocab_size: int, max_model_len: int, has_tokenizer: bool
) -> None:
    """Accept a request that the model can run.

    Raises:
        ContextLengthError: Prompt and `max_tokens` exceed the context.
        RequestError: A token id is outside the vocabulary, or text is needed without a tokenizer.
    """
    params = request.params
    _check_vocabulary("prompt_token_ids", request.prompt_token_ids, vocab_size)
    _check_vocabulary("stop_token_ids", params.stop_token_ids, vocab_size)
    _check_vocabulary("logit_bias", params.logit_bias, vocab_size)
    length = len(request.prompt_token_ids)
    if length > max_model_len:
        raise ContextLengthError(
            f"prompt_token_ids has {length} tokens, which exceeds this model's context of "
            f"{max_model_len} tokens",
            param="prompt_token_ids",
        )
    if length + params.max_tokens > max_model_len:
        raise ContextLengthError(
            f"max_tokens={params.max_tokens} exceeds this model's context of {max_model_len} "
            f"tokens minus the prompt's {length}",
            param="max_tokens",
        )
    if not has_tokenizer and params.stop:
        raise RequestError("stop needs text, and this model has no tokenizer", param="stop")


def _check_vocabulary(field: str, token_ids: Iterable[int], vocab_size: int) -> None:
    for index, token_id in enumerate(token_ids):
        if token_id >= vocab_size:
            raise RequestError(
                f"{field}[{index}]={token_id} is no token of this model; its largest id is "
                f"{vocab_size - 1}",
                param=field,
            )
