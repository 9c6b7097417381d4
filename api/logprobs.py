"""Log-probabilities in the shape of OpenAI's completions API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from model.tokenizer import StreamDecoder, Tokenizer
from serving.request import TokenLogprob


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token's spelling in `tokens` and `top_logprobs`.

    Its text; `bytes:\\xe2\\x80` for a token that is no whole character, as OpenAI writes them; the
    vocabulary's own name for a control token, which has no text.
    """
    raw = tokenizer.token_bytes(token_id)
    if not raw:
        return tokenizer.id_to_piece(token_id)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class LogprobsWriter:
    """Turns a choice's tokens, in order, into `logprobs` objects; keeps count of the offset."""

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool) -> None:
        """Start a choice whose text begins the sequence (`at_start`) or continues a prompt."""
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer, at_start=at_start)
        self._offset = 0

    def write(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        """The object for the choice's next tokens.

        `text_offset` counts characters in the choice's text; a token in the middle of a character
        has that character's offset.
        """
        texts: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token in tokens:
            text = token_text(self._tokenizer, token.token_id)
            texts.append(text)
            logprobs.append(token.logprob)
            tops.append(None if token.logprob is None else self._top(text, token))
            offsets.append(self._offset)
            self._offset += len(self._decoder.push(token.token_id))
        return {
            "tokens": texts,
            "token_logprobs": logprobs,
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _top(self, text: str, token: TokenLogprob) -> dict[str, float]:
        """The alternatives, best first, and the token itself; of two spelled alike the likelier."""
        top: dict[str, float] = {}
        for token_id, logprob in token.top:
            top.setdefault(token_text(self._tokenizer, token_id), logprob)
        if token.logprob is not None:
            top.setdefault(text, token.logprob)
        return top
