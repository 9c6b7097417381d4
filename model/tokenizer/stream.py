"""Text from token ids while they arrive."""

from __future__ import annotations

import codecs

from model.tokenizer.protocol import Tokenizer


class StreamDecoder:
    """Decodes one sequence token by token, releasing whole UTF-8 characters only.

    The pushes and the final flush concatenate to ``tokenizer.decode(ids)``, whatever the ids. At
    most the three bytes of an unfinished character are held back.
    """

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool = True) -> None:
        """Start a sequence.

        Args:
          tokenizer: the tokenizer of the ids.
          at_start: the tokens open a text. Pass False where they continue a prompt, so that a
            tokenizer with a dummy prefix keeps the space before the first word.
        """
        self._tokenizer = tokenizer
        self._at_start = at_start
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Take the next token and return the characters it completes, often none or several.

        Raises:
          TokenizerInputError: the id lies outside the vocabulary.
        """
        data = self._tokenizer.token_bytes(token_id, at_start=self._at_start)
        if self._at_start:
            # Control tokens are silent and leave the next token at the start of the text.
            self._at_start = not self._tokenizer.token_bytes(token_id)
        return self._utf8.decode(data)

    @property
    def is_at_start(self) -> bool:
        """Whether the next token opens the text."""
        return self._at_start

    @property
    def is_mid_character(self) -> bool:
        """Whether bytes of an unfinished character are held back."""
        return bool(self._utf8.getstate()[0])

    def flush(self) -> str:
        """End the sequence: return U+FFFD for a character that never came whole, else ``""``."""
        return self._utf8.decode(b"", final=True)
