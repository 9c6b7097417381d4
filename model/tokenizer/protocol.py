"""What the engine, the doors and the checkpoints expect of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from model.errors import TokenizerError


class TokenizerInputError(TokenizerError, ValueError):
    """A text or a token id that no tokenizer can take: lone surrogates, ids out of range."""

    code = "invalid_tokenizer_input"


class Tokenizer(Protocol):
    """Maps text to token ids in ``[0, vocab_size)`` and back; safe to call from several threads."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, those of control tokens and unused rows of the embedding included."""
        ...

    @property
    def bos_id(self) -> int | None:
        """The id that opens every sequence, for models trained with one."""
        ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a document or a turn: generation stops at any of them."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``: no bos, and never a control token, whatever the text spells.

        Raises:
          TokenizerInputError: the text holds a lone surrogate, which is no Unicode character.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``: control tokens are silent, broken UTF-8 becomes U+FFFD.

        Raises:
          TokenizerInputError: an id lies outside the vocabulary.
        """
        ...

    def token_bytes(self, token_id: int, *, at_start: bool = False) -> bytes:
        """Return a token's own bytes, perhaps part of a character; none for control tokens.

        ``at_start`` is for the token that opens a text: tokenizers that put a dummy space before
        every text take it off there.

        Raises:
          TokenizerInputError: the id lies outside the vocabulary.
        """
        ...

    def id_to_piece(self, token_id: int) -> str:
        """Return the token as the vocabulary file spells it, for people and logs.

        Raises:
          TokenizerInputError: the id lies outside the vocabulary.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write the files from which `load_tokenizer` reads the same tokenizer back."""
        ...


def require_id(token_id: int, vocab_size: int) -> None:
    """Raise TokenizerInputError unless ``0 <= token_id < vocab_size``."""
    if not 0 <= token_id < vocab_size:
        raise TokenizerInputError(
            f"token id {token_id} is outside the vocabulary of {vocab_size} tokens: "
            f"expected 0 to {vocab_size - 1}"
        )


def require_unicode(text: str) -> None:
    """Raise TokenizerInputError if ``text`` has no UTF-8 form, which only lone surrogates cause."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerInputError(
            f"text holds the lone surrogate U+{ord(text[error.start]):04X} at index {error.start}: "
            "it is no Unicode character and cannot be encoded"
        ) from None


def join_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Decode ``ids`` at once: their bytes as UTF-8, with U+FFFD where they are not valid."""
    pieces: list[bytes] = []
    at_start = True
    for token_id in ids:
        pieces.append(tokenizer.token_bytes(token_id, at_start=at_start))
        at_start = at_start and not tokenizer.token_bytes(token_id)  # control tokens are silent
    return b"".join(pieces).decode("utf-8", errors="replace")
