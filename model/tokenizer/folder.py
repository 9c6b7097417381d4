"""Find and load the tokenizer of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.errors import TokenizerError
from model.tokenizer.huggingface import GENERATION_FILE, TOKENIZER_FILE, HuggingFaceTokenizer
from model.tokenizer.protocol import Tokenizer
from model.tokenizer.sentencepiece_model import MODEL_FILE, SentencePieceTokenizer

_ID_FILES = (GENERATION_FILE, "config.json")
_NAME_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load a folder's ``tokenizer.model`` (SentencePiece), else ``tokenizer.json`` (Hugging Face).

    For ``tokenizer.json`` the bos and eos ids come from the first file beside it that names them:
    ``generation_config.json``, ``config.json``, ``tokenizer_config.json``,
    ``special_tokens_map.json``; and the vocabulary is as large as ``vocab_size`` in
    ``config.json``.

    Raises:
      TokenizerError: the folder has neither file, or one of the files is damaged.
    """
    directory = Path(directory)
    if (directory / MODEL_FILE).is_file():
        return SentencePieceTokenizer.from_file(directory / MODEL_FILE)
    path = directory / TOKENIZER_FILE
    if not path.is_file():
        raise TokenizerError(f"{directory} has neither {MODEL_FILE} nor {TOKENIZER_FILE}")
    bos = _special_tokens(directory, "bos")
    return HuggingFaceTokenizer.from_file(
        path,
        bos=bos[0] if bos else None,
        eos=_special_tokens(directory, "eos"),
        vocab_size=_model_vocab_size(directory),
    )


def _special_tokens(directory: Path, role: str) -> list[int | str]:
    """Return the ids or spellings of a role ("bos", "eos") from the first file that names any."""
    for file, key in ((f, f"{role}_token_id") for f in _ID_FILES):
        value = _read_json(directory / file).get(key)
        if value is not None:
            ids = value if isinstance(value, list) else [value]
            if not all(type(token_id) is int for token_id in ids):
                raise TokenizerError(f"{directory / file}: {key}={value!r} is not a token id")
            return ids
    for file, key in ((f, f"{role}_token") for f in _NAME_FILES):
        value = _read_json(directory / file).get(key)
        if value is not None:
            spelling = value.get("content") if isinstance(value, dict) else value
            if not isinstance(spelling, str):
                raise TokenizerError(f"{directory / file}: {key}={value!r} is not a token")
            return [spelling]
    return []


def _model_vocab_size(directory: Path) -> int | None:
    """Return the rows of the model's embedding, from our own or a Hugging Face ``config.json``."""
    path = directory / "config.json"
    fields = _read_json(path)
    if fields.get("format") == "talipot":
        config = fields.get("config")
        if not isinstance(config, dict):
            raise TokenizerError(f"{path}: config={config!r} is no JSON object")
        fields = config
    vocab_size = fields.get("vocab_size")
    if vocab_size is not None and type(vocab_size) is not int:
        raise TokenizerError(f"{path}: vocab_size={vocab_size!r} is not a number of tokens")
    return vocab_size


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"cannot read {path}: {error}") from error
    if not isinstance(fields, dict):
        raise TokenizerError(f"{path} holds no JSON object")
    return fields
