"""Texts to tokens and back for callers: checked against the served model, long ones in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from api.host import EngineHost
from model.tokenizer import TokenizerInputError
from serving.errors import ContextLengthError, RequestError

Prompt: TypeAlias = str | tuple[int, ...]

# Up to here tokenizing takes about a millisecond; beyond, other requests must go on meanwhile.
_INLINE_CHARS = 8192
_INLINE_TOKENS = 4096


class Tokens:
    """The tokenizer of the host's model, as callers reach it."""

    def __init__(self, host: EngineHost) -> None:
        """Every method raises as `EngineHost.engine` while there is no engine."""
        self._host = host

    async def of_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """The token ids that the model sees for a prompt.

        A text begins with the model's bos, if it has one; an empty text begins a new document.

        Raises:
            RequestError: An id is no token of the model, or the text no Unicode.
            ContextLengthError: The prompt is too long for the context.
        """
        tokenizer = self._host.tokenizer
        if isinstance(prompt, str):
            self._check_text_length(prompt)
            token_ids = tuple(await self.encode(prompt))
            if tokenizer.bos_id is not None:
                token_ids = (tokenizer.bos_id, *token_ids)
            token_ids = token_ids or tokenizer.eos_ids[:1]
        else:
            self._check_vocabulary("prompt", prompt)
            token_ids = prompt
        limit = self._host.engine.max_model_len
        if len(token_ids) > limit:
            raise ContextLengthError(
                f"prompt has {len(token_ids)} tokens, which exceeds this model's context of "
                f"{limit} tokens",
                param="prompt",
            )
        return token_ids

    async def encode(self, text: str) -> list[int]:
        """Token ids of a text without a bos.

        Raises:
            RequestError: The text is no Unicode (a lone surrogate).
        """
        tokenizer = self._host.tokenizer
        try:
            if len(text) <= _INLINE_CHARS:
                return tokenizer.encode(text)
            return await asyncio.to_thread(tokenizer.encode, text)
        except TokenizerInputError as error:
            raise RequestError(f"prompt: {error}", param="prompt") from None

    async def decode(self, token_ids: list[int]) -> str:
        """The text of token ids.

        Raises:
            RequestError: An id is no token of the model.
        """
        tokenizer = self._host.tokenizer
        self._check_vocabulary("tokens", token_ids)
        if len(token_ids) <= _INLINE_TOKENS:
            return tokenizer.decode(token_ids)
        return await asyncio.to_thread(tokenizer.decode, token_ids)

    def control_tokens(self) -> dict[str, int]:
        """Name to id of the bos and eos tokens, which `encode` never yields."""
        tokenizer = self._host.tokenizer
        ids = [*tokenizer.eos_ids, *([] if tokenizer.bos_id is None else [tokenizer.bos_id])]
        return {tokenizer.id_to_piece(token_id): token_id for token_id in ids}

    def _check_text_length(self, text: str) -> None:
        """Refuse a text that cannot fit before time is spent on tokenizing it."""
        limit = self._host.max_text_bytes
        size = len(text.encode("utf-8", "replace"))
        if size > limit:
            raise ContextLengthError(
                f"prompt has {size} bytes; no text of more than {limit} bytes fits this model's "
                f"context of {self._host.engine.max_model_len} tokens",
                param="prompt",
            )

    def _check_vocabulary(self, field: str, token_ids: Sequence[int]) -> None:
        largest = self._host.tokenizer.vocab_size - 1
        for index, token_id in enumerate(token_ids):
            if token_id > largest:
                raise RequestError(
                    f"{field}[{index}]={token_id} is no token of this model; its largest id is "
                    f"{largest}",
                    param=field,
                )
