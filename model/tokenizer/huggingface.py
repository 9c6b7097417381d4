"""The tokenizers of imported models: Hugging Face ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from model.errors import TokenizerError
from model.tokenizer.piece_bytes import PieceBytes
from model.tokenizer.protocol import TokenizerInputError, join_tokens, require_id, require_unicode

TOKENIZER_FILE = "tokenizer.json"
GENERATION_FILE = "generation_config.json"


class HuggingFaceTokenizer:
    """A ``tokenizer.json`` run by the ``tokenizers`` library.

    The ids are the library's for the same text, except that text never becomes a control token.
    Byte-level vocabularies are lossless; others are as lossless as their own normalizer. Broken
    UTF-8 decodes to one U+FFFD for each broken sequence, as in Python.
    """

    def __init__(
        self,
        definition: str,
        *,
        bos: int | str | None = None,
        eos: Sequence[int | str] = (),
        vocab_size: int | None = None,
        source: str = TOKENIZER_FILE,
    ) -> None:
        """Load from the text of a ``tokenizer.json``.

        Args:
          definition: the JSON text.
          bos: the token that opens sequences, by id or as spelled; ``tokenizer.json`` does not say.
          eos: the tokens that end them, likewise.
          vocab_size: rows of the model's embedding where that is padded past the tokenizer's ids.
            The rows without a token are silent.
          source: names the file in errors.

        Raises:
          TokenizerError: the text is no ``tokenizer.json``, has an unsupported decoder, would let
            text spell a control token, or disagrees with ``bos``, ``eos`` or ``vocab_size``.
        """
        fields = _parse(definition, source)
        self._piece_bytes = PieceBytes.from_decoder(fields.get("decoder"), source=source)
        self._tokenizer = _load(fields, source)
        self._control_ids = frozenset(
            token_id
            for token_id, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        )
        num_ids = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._vocab_size = num_ids if vocab_size is None else vocab_size
        if self._vocab_size < num_ids:
            raise TokenizerError(
                f"{source} has {num_ids} ids, more than the model's vocab_size={vocab_size}"
            )
        self._bos_id = None if bos is None else self._require_token("bos", bos, source)
        self._eos_ids = tuple(self._require_token("eos", token, source) for token in eos)
        for token_id in self._control_ids:
            self._require_unspellable(self.id_to_piece(token_id), source)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        bos: int | str | None = None,
        eos: Sequence[int | str] = (),
        vocab_size: int | None = None,
    ) -> HuggingFaceTokenizer:
        """Load ``tokenizer.json``; the arguments are the constructor's.

        Raises:
          TokenizerError: the file is missing, or as in the constructor.
        """
        try:
            definition = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise TokenizerError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{path} is not a tokenizer.json: {error}") from error
        return cls(definition, bos=bos, eos=eos, vocab_size=vocab_size, source=str(path))

    @property
    def vocab_size(self) -> int:
        """Number of ids, gaps and silent rows at the end included."""
        return self._vocab_size

    @property
    def bos_id(self) -> int | None:
        """The id that opens every sequence, as given at construction."""
        return self._bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a sequence, as given at construction."""
        return self._eos_ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; see `Tokenizer.encode`."""
        require_unicode(text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not self._control_ids.isdisjoint(ids):
            control = next(token_id for token_id in ids if token_id in self._control_ids)
            raise TokenizerInputError(
                f"text spells the control token {control} ({self.id_to_piece(control)}), "
                "which this vocabulary cannot tell apart from it"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; see `Tokenizer.decode`."""
        return join_tokens(self, ids)

    def token_bytes(self, token_id: int, *, at_start: bool = False) -> bytes:
        """Return a token's bytes; see `Tokenizer.token_bytes`."""
        require_id(token_id, self._vocab_size)
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None or token_id in self._control_ids:
            return b""
        return self._piece_bytes.of(piece, at_start=at_start)

    def id_to_piece(self, token_id: int) -> str:
        """Return the token as the file spells it, ``<unused:ID>`` for rows without a token."""
        require_id(token_id, self._vocab_size)
        piece = self._tokenizer.id_to_token(token_id)
        return f"<unused:{token_id}>" if piece is None else piece

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json``, and the bos and eos ids to ``generation_config.json``."""
        directory.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(directory / TOKENIZER_FILE))
        ids = {"bos_token_id": self._bos_id, "eos_token_id": list(self._eos_ids)}
        (directory / GENERATION_FILE).write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")

    def _require_token(self, name: str, token: int | str, source: str) -> int:
        token_id = self._tokenizer.token_to_id(token) if isinstance(token, str) else token
        if token_id is None or not 0 <= token_id < self._vocab_size:
            raise TokenizerError(
                f"{source}: {name}={token!r} is none of its {self._vocab_size} tokens"
            )
        return token_id

    def _require_unspellable(self, piece: str, source: str) -> None:
        try:
            self.encode(piece)
        except TokenizerInputError as error:
            raise TokenizerError(f"{source}: {error}") from error


def _parse(definition: str, source: str) -> dict[str, Any]:
    try:
        fields = json.loads(definition)
    except ValueError as error:
        raise TokenizerError(f"{source} is not a tokenizer.json: {error}") from error
    if not isinstance(fields, dict) or "model" not in fields:
        raise TokenizerError(f"{source} is not a tokenizer.json: it has no entry 'model'")
    return fields


def _load(fields: dict[str, Any], source: str) -> tokenizers.Tokenizer:
    # Files may carry the truncation and padding of somebody's training run: they would cut text
    # silently.
    text = json.dumps(fields | {"truncation": None, "padding": None})
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower type for a malformed file
        raise TokenizerError(f"{source} is not a tokenizer.json: {error}") from error
    tokenizer.encode_special_tokens = True  # text that spells a control token stays text
    return tokenizer
