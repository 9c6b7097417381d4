"""Which tokenizer a model folder holds, and where its special tokens are named."""

import json
from pathlib import Path

import pytest
import tokenizers

from model.errors import TokenizerError
from model.tokenizer import (
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    load_tokenizer,
)


@pytest.fixture
def folder(byte_level: tokenizers.Tokenizer, tmp_path: Path) -> Path:
    byte_level.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write_json(path: Path, fields: object) -> None:
    path.write_text(json.dumps(fields))


def test_sentencepiece_comes_first(
    sentencepiece_tokenizer: SentencePieceTokenizer, folder: Path
) -> None:
    sentencepiece_tokenizer.save(folder)
    assert isinstance(load_tokenizer(folder), SentencePieceTokenizer)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.model nor tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_no_file_names_special_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (None, ())


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("generation_config.json", {"bos_token_id": 0, "eos_token_id": 1}),
        ("generation_config.json", {"bos_token_id": 0, "eos_token_id": [1]}),
        ("config.json", {"bos_token_id": 0, "eos_token_id": 1}),
        ("tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"}),
        ("tokenizer_config.json", {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}),
        ("special_tokens_map.json", {"bos_token": "<s>", "eos_token": {"content": "</s>"}}),
    ],
)
def test_special_tokens_come_from(folder: Path, file: str, fields: object) -> None:
    write_json(folder / file, fields)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (0, (1,))


def test_the_first_file_that_names_them_wins(folder: Path) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": [5, 6], "bos_token_id": None})
    write_json(folder / "config.json", {"eos_token_id": 7, "bos_token_id": 8})
    write_json(folder / "tokenizer_config.json", {"eos_token": "</s>", "bos_token": "<s>"})
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (8, (5, 6))


@pytest.mark.parametrize(
    "config", [{"vocab_size": 500}, {"format": "talipot", "config": {"vocab_size": 500}}]
)
def test_the_vocabulary_is_the_models(folder: Path, config: object) -> None:
    write_json(folder / "config.json", config)
    assert load_tokenizer(folder).vocab_size == 500


def test_saved_and_loaded_again(
    byte_level_tokenizer: HuggingFaceTokenizer, byte_level: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    HuggingFaceTokenizer(byte_level.to_str(), bos=0, eos=[1, 5]).save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert (loaded.bos_id, loaded.eos_ids) == (0, (1, 5))
    text = "A talipot leaf — 1922."
    assert loaded.encode(text) == byte_level_tokenizer.encode(text)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", '{"vocab_size": "many"}', "vocab_size='many' is not a number"),
        ("config.json", '{"format": "talipot", "config": []}', "config="),
        ("generation_config.json", '{"eos_token_id": [true]}', r"eos_token_id=\[True\] is not"),
        ("generation_config.json", '{"eos_token_id": 9999}', "eos=9999 is none of its"),
        ("tokenizer_config.json", '{"eos_token": 3}', "eos_token=3 is not a token"),
        ("tokenizer_config.json", '{"eos_token": "</q>"}', "eos='</q>' is none of its"),
        ("special_tokens_map.json", "[]", "holds no JSON object"),
        ("config.json", "{", "cannot read"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)
