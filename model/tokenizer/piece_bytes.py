"""The bytes behind the pieces of a Hugging Face vocabulary, as its ``tokenizer.json`` decodes them.

Two families are supported, which cover every byte-lossless vocabulary in use: byte-level BPE, where
each character of a piece stands for a byte (GPT-2's alphabet; Falcon, Cohere), and
SentencePiece-like ones, where U+2581 stands for a space and ``<0xNN>`` pieces for bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import TokenizerError

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's: printable Latin-1 stands for itself, U+0100 onwards for the other bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_ALPHABET = _byte_alphabet()


@dataclass(frozen=True, kw_only=True)
class PieceBytes:
    """How a piece becomes bytes, one token at a time."""

    is_byte_level: bool = False
    """Each character stands for a byte."""
    has_byte_pieces: bool = False
    """``<0xNN>`` is one byte."""
    replacements: tuple[tuple[str, str], ...] = ()
    """Strings of a piece and what they stand for, in order."""
    dropped_at_start: str = ""
    """A character that the token opening the text loses, however often it stands in it."""
    strips_space: bool = False
    """The token opening the text loses one leading space."""

    @classmethod
    def from_decoder(cls, decoder: Mapping[str, Any] | None, *, source: str) -> PieceBytes:
        """Read the ``decoder`` entry of a ``tokenizer.json``; ``source`` names the file in errors.

        Raises:
          TokenizerError: the entry is missing or has a step that cannot be undone token by token.
        """
        fields: dict[str, Any] = {}
        replacements: list[tuple[str, str]] = []
        for step in _steps(decoder):
            match step:
                case {"type": "ByteLevel"}:
                    fields["is_byte_level"] = True
                case {"type": "ByteFallback"}:
                    fields["has_byte_pieces"] = True
                case {"type": "Fuse"}:
                    pass  # tokens are always joined
                case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
                    replacements.append((old, new))
                case {"type": "Metaspace", "replacement": str(symbol)}:
                    replacements.append((symbol, " "))
                    # Older files lack the scheme; the library takes those with a prefix alone.
                    if step.get("prepend_scheme", "always") != "never":
                        fields["dropped_at_start"] = symbol
                case {"type": "Strip", "content": " ", "start": 0 | 1 as start, "stop": 0}:
                    fields["strips_space"] = start == 1
                case _:
                    raise TokenizerError(f"{source}: unsupported decoder step {step}")
        if not fields and not replacements:
            raise TokenizerError(f"{source}: no decoder, so pieces cannot be turned into text")
        return cls(replacements=tuple(replacements), **fields)

    def of(self, piece: str, *, at_start: bool = False) -> bytes:
        """Return the bytes of ``piece``, as the token that opens the text if ``at_start``."""
        if self.is_byte_level:
            if all(character in _BYTE_ALPHABET for character in piece):
                return bytes(_BYTE_ALPHABET[character] for character in piece)
            return piece.encode("utf-8")  # an added token, stored as plain text
        if self.has_byte_pieces and (byte := _BYTE_PIECE.fullmatch(piece)):
            data = bytes([int(byte[1], 16)])
        else:
            if at_start and self.dropped_at_start:
                piece = piece.replace(self.dropped_at_start, "")
            for old, new in self.replacements:
                piece = piece.replace(old, new)
            data = piece.encode("utf-8")
        return data.removeprefix(b" ") if at_start and self.strips_space else data


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    match decoder:
        case None:
            return
        case {"type": "Sequence", "decoders": list(steps)}:
            for step in steps:
                yield from _steps(step)
        case _:
            yield decoder
