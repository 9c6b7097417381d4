"""The tokenizer of Talipot's own models: SentencePiece with PaLM's lossless vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import sentencepiece

from model.errors import TokenizerError
from model.tokenizer.protocol import join_tokens, require_id, require_unicode

MODEL_FILE = "tokenizer.model"

PieceKind = Literal["normal", "unknown", "control", "unused", "byte"]

# SentencePiece writes a space as U+2581 inside pieces, so it cannot tell that character from a
# space.
_SPACE_SYMBOL = "\u2581"

# Each text survives a round trip only if the vocabulary has the property named beside it.
_LOSSLESS_PROBES = (
    ("no dummy prefix", "a"),
    ("spaces kept as written", "  a  b  "),
    ("no Unicode normalization", "\ufb01 \u2460 e\u0301 \uff21"),
    ("newlines kept as written", "\r\n\n\ta\n"),
    ("byte fallback", "\U0010fffd\x00\x85"),
)


class SentencePieceTokenizer:
    """A SentencePiece vocabulary where ``decode(encode(text)) == text`` for all Unicode text.

    U+2581, which plain SentencePiece turns into a space, is encoded through its three byte pieces.
    """

    def __init__(self, model: bytes, *, source: str = MODEL_FILE) -> None:
        """Load from the bytes of a SentencePiece model; ``source`` names it in errors.

        Raises:
          TokenizerError: the bytes are no SentencePiece model, or its vocabulary is not lossless,
            or it lacks a byte piece or an end-of-document piece.
        """
        self._model = model
        try:
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(model)
            ids = list(range(processor.vocab_size()))
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"{source} is not a SentencePiece model: {error}") from error
        if not ids:
            raise TokenizerError(f"{source} is not a SentencePiece model: it has no pieces")
        self._processor = processor
        self._pieces: list[str] = [processor.id_to_piece(token_id) for token_id in ids]
        self._bytes = [self._read_bytes(token_id) for token_id in ids]
        self._space_symbol_ids = [
            self._require_piece(f"<0x{byte:02X}>", "byte fallback", source)
            for byte in _SPACE_SYMBOL.encode()
        ]
        if processor.eos_id() < 0:
            raise TokenizerError(f"{source} has no end-of-document (eos) piece")
        for name, probe in _LOSSLESS_PROBES:
            if (found := self.decode(self.encode(probe))) != probe:
                raise TokenizerError(
                    f"{source} is not lossless, it lacks '{name}': "
                    f"{probe!r} comes back as {found!r}"
                )

    @classmethod
    def from_file(cls, path: str | Path) -> SentencePieceTokenizer:
        """Load ``tokenizer.model``.

        Raises:
          TokenizerError: the file is missing, or as in the constructor.
        """
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise TokenizerError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        return cls(model, source=str(path))

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return len(self._pieces)

    @property
    def bos_id(self) -> int | None:
        """The bos piece, None in Talipot's own vocabularies."""
        bos_id: int = self._processor.bos_id()
        return bos_id if bos_id >= 0 else None

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The one end-of-document piece."""
        return (self._processor.eos_id(),)

    @property
    def pad_id(self) -> int | None:
        """The padding piece, if the vocabulary has one."""
        pad_id: int = self._processor.pad_id()
        return pad_id if pad_id >= 0 else None

    @property
    def unk_id(self) -> int:
        """The unknown piece, which `encode` never returns."""
        unk_id: int = self._processor.unk_id()
        return unk_id

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; see `Tokenizer.encode`."""
        require_unicode(text)
        first, *others = text.split(_SPACE_SYMBOL)
        ids: list[int] = self._processor.encode(first)
        for other in others:
            ids += self._space_symbol_ids
            ids += self._processor.encode(other)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; see `Tokenizer.decode`."""
        return join_tokens(self, ids)

    def token_bytes(self, token_id: int, *, at_start: bool = False) -> bytes:
        """Return the bytes of a piece; without a dummy prefix ``at_start`` changes nothing."""
        require_id(token_id, len(self._bytes))
        return self._bytes[token_id]

    def id_to_piece(self, token_id: int) -> str:
        """Return the piece as the model file spells it, U+2581 for a space."""
        require_id(token_id, len(self._pieces))
        return self._pieces[token_id]

    def piece_to_id(self, piece: str) -> int | None:
        """Return the id of a piece as the model file spells it, None if there is no such piece."""
        token_id: int = self._processor.piece_to_id(piece)
        return token_id if self._pieces[token_id] == piece else None

    def piece_score(self, token_id: int) -> float:
        """Return the score by which merges are ranked, for export to formats that keep it."""
        require_id(token_id, len(self._pieces))
        score: float = self._processor.get_score(token_id)
        return score

    def piece_kind(self, token_id: int) -> PieceKind:
        """Return what kind of piece an id is."""
        require_id(token_id, len(self._pieces))
        if self._processor.is_byte(token_id):
            return "byte"
        if self._processor.is_control(token_id):
            return "control"
        if self._processor.is_unknown(token_id):
            return "unknown"
        return "unused" if self._processor.is_unused(token_id) else "normal"

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.model``, byte for byte as it was loaded."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MODEL_FILE).write_bytes(self._model)

    def _read_bytes(self, token_id: int) -> bytes:
        piece = self._pieces[token_id]
        match self.piece_kind(token_id):
            case "byte":
                return bytes([int(piece[3:5], 16)])
            case "normal":
                return piece.replace(_SPACE_SYMBOL, " ").encode("utf-8")
            case _:
                return b""

    def _require_piece(self, piece: str, purpose: str, source: str) -> int:
        token_id = self.piece_to_id(piece)
        if token_id is None:
            raise TokenizerError(f"{source} lacks the piece {piece}, needed for {purpose}")
        return token_id
