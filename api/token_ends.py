"""Where in a generated text its tokens end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from model.tokenizer import StreamDecoder, Tokenizer


class TokenLengths(dict[int, int | None]):
    """Token id to its characters; None for a token that is no whole characters. Filled as asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Of tokens within a text: one that opens a text may be a space shorter."""
        super().__init__()
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size

    def __missing__(self, token_id: int) -> int | None:
        """Look a token up, once."""
        length: int | None = 0  # of a padding row, which has no text
        if token_id < self.vocab_size:
            try:
                data = self.tokenizer.token_bytes(token_id, at_start=False)
                length = len(data.decode("utf-8"))
            except UnicodeDecodeError:
                length = None
        self[token_id] = length
        return length


class TokenEnds:
    """For a generation's tokens, in order, the characters of its text up to each one's end.

    A token that ends within a character counts that character.
    """

    def __init__(self, lengths: TokenLengths, prompt: Sequence[int], *, echo: bool) -> None:
        """Follow a prompt's continuation, decoded as the engine decodes it."""
        self._lengths = lengths
        self.prompt_text = ""
        """The prompt's text where it is echoed, else empty."""
        tokenizer = lengths.tokenizer
        if echo:
            self._decoder = StreamDecoder(tokenizer)
            self.prompt_text = "".join(self._decoder.push(token) for token in prompt)
        else:
            is_silent = not any(tokenizer.token_bytes(token) for token in prompt)
            self._decoder = StreamDecoder(tokenizer, at_start=is_silent)
        self._end = 0
        self._note_state()

    def extend(self, token_ids: Sequence[int]) -> list[int]:
        """The next tokens' ends."""
        if self._is_between:
            lengths = [self._lengths[token_id] for token_id in token_ids]
            if None not in lengths:  # so nearly always
                ends = list(itertools.accumulate(cast("list[int]", lengths), initial=self._end))
                self._end = ends[-1]
                return ends[1:]
        return [self.push(token_id) for token_id in token_ids]

    def push(self, token_id: int) -> int:
        """The next token's end."""
        length = self._lengths[token_id]
        if self._is_between and length is not None:
            self._end += length
            return self._end
        if token_id < self._lengths.vocab_size:
            self._end += len(self._decoder.push(token_id))
            self._note_state()
        return self._end + self._is_mid

    def _note_state(self) -> None:
        self._is_mid = self._decoder.is_mid_character
        # Between whole characters the decoder need not see the whole characters that come.
        self._is_between = not (self._is_mid or self._decoder.is_at_start)
