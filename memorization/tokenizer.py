"""What an index needs of a tokenizer, and how it recognises the one it was built with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from memorization.errors import TokenizerMismatchError

# Spaces, capitals, digits, accents, other scripts and an emoji: a vocabulary that splits all of
# this in the same way and has the same pieces is the same for our purpose.
_PROBE = (
    "It was the best of times; it was the worst of times.\n\n  \tCHAPTER XIV. 1859, 3.14159\r\n"
    "na\u00efve caf\u00e9 \u00fcber \u0391\u03b8\u03ae\u03bd\u03b1 \u041c\u043e\u0441\u043a\u0432"
    "\u0430 \u6771\u4eac \U0001f334 don't re-read antidisestablishmentarianism"
)


class IndexTokenizer(Protocol):
    """Maps text to token ids in ``[0, vocab_size)``; safe to call from several threads."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of ``text``, without control tokens."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return a token's own bytes."""
        ...


def tokenizer_identity(tokenizer: IndexTokenizer) -> str:
    """SHA-256 over every token's bytes and over the ids of a probe text, as 64 hex digits."""
    digest = hashlib.sha256(f"{tokenizer.vocab_size}\n".encode())
    for token_id in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token_id)
        digest.update(len(piece).to_bytes(4, "little") + piece)
    digest.update(repr(list(tokenizer.encode(_PROBE))).encode())
    return digest.hexdigest()


def require_tokenizer(built_with: str, given: str, where: str) -> None:
    """Refuse a tokenizer that is not the one an index was built with.

    Args:
        built_with: `tokenizer_identity` kept in the index.
        given: `tokenizer_identity` of the tokenizer at hand.
        where: What is refused, for the message.

    Raises:
        TokenizerMismatchError: They differ; the message has both.
    """
    if built_with != given:
        raise TokenizerMismatchError(
            f"{where} was built with the tokenizer {built_with[:12]}, and this one is "
            f"{given[:12]}: build the index again with this tokenizer"
        )
