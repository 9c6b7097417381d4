"""Imported vocabularies: the same ids and texts as the library they were made with."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from model.errors import TokenizerError
from model.tokenizer import HuggingFaceTokenizer, StreamDecoder

FAMILIES = ["byte_level", "metaspace", "llama_like"]

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="session", params=FAMILIES)
def library(request: pytest.FixtureRequest) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer.from_str(request.getfixturevalue(request.param).to_str())
    library.encode_special_tokens = True
    return library


@pytest.fixture(scope="session")
def tokenizer(library: tokenizers.Tokenizer) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(library.to_str(), bos="<s>", eos=["</s>"])


@given(text=unicode_text)
def test_ids_and_text_are_the_librarys(
    tokenizer: HuggingFaceTokenizer, library: tokenizers.Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == library.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == library.decode(ids)


@given(data=st.data())
def test_ids_of_whole_characters_decode_as_in_the_library(
    tokenizer: HuggingFaceTokenizer, library: tokenizers.Tokenizer, data: st.DataObject
) -> None:
    whole = [i for i in range(tokenizer.vocab_size) if _is_utf8(tokenizer.token_bytes(i))]
    ids = data.draw(st.lists(st.sampled_from(whole)))
    assert tokenizer.decode(ids) == library.decode(ids)


@given(text=unicode_text)
def test_byte_level_round_trip(byte_level_tokenizer: HuggingFaceTokenizer, text: str) -> None:
    assert byte_level_tokenizer.decode(byte_level_tokenizer.encode(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" ▁")))
def test_byte_fallback_round_trip(
    metaspace_tokenizer: HuggingFaceTokenizer, llama_like_tokenizer: HuggingFaceTokenizer, text: str
) -> None:
    for tokenizer in (metaspace_tokenizer, llama_like_tokenizer):
        assert tokenizer.decode(tokenizer.encode(f"a {text} b")) == f"a {text} b"


def test_special_tokens_in_text_stay_text(tokenizer: HuggingFaceTokenizer) -> None:
    text = "a</s><s> b"
    ids = tokenizer.encode(text)
    assert not {tokenizer.bos_id, *tokenizer.eos_ids} & set(ids)
    assert tokenizer.decode(ids) == text


def test_an_added_token_keeps_its_space(byte_level_tokenizer: HuggingFaceTokenizer) -> None:
    (token_id,) = byte_level_tokenizer.encode("two words")
    assert byte_level_tokenizer.token_bytes(token_id) == b"two words"


def test_a_continuation_keeps_its_first_space(llama_like_tokenizer: HuggingFaceTokenizer) -> None:
    leaf, *_ = llama_like_tokenizer.encode("leaf")
    assert llama_like_tokenizer.id_to_piece(leaf).startswith("▁")
    opening = StreamDecoder(llama_like_tokenizer).push(leaf)
    continuing = StreamDecoder(llama_like_tokenizer, at_start=False).push(leaf)
    assert continuing == " " + opening


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ({"add_prefix_space": True}, "a leaf"),
        ({"prepend_scheme": "first"}, "a leaf"),
        ({"prepend_scheme": "never"}, " a leaf"),
    ],
)
def test_metaspace_decoders(
    metaspace: tokenizers.Tokenizer, prefix: dict[str, object], text: str
) -> None:
    decoder = {"type": "Metaspace", "replacement": "▁", **prefix}
    definition = json.dumps(json.loads(metaspace.to_str()) | {"decoder": decoder})
    ids = metaspace.encode("a leaf").ids
    library = tokenizers.Tokenizer.from_str(definition)
    assert HuggingFaceTokenizer(definition).decode(ids) == library.decode(ids) == text


def test_truncation_and_padding_of_the_file_are_ignored(byte_level: tokenizers.Tokenizer) -> None:
    cutting = tokenizers.Tokenizer.from_str(byte_level.to_str())
    cutting.enable_truncation(2)
    cutting.enable_padding(length=9)
    tokenizer = HuggingFaceTokenizer(cutting.to_str())
    assert tokenizer.decode(tokenizer.encode("a leaf that is not cut")) == "a leaf that is not cut"
    assert len(tokenizer.encode("a")) == 1


def test_rows_past_the_vocabulary_are_silent(byte_level: tokenizers.Tokenizer) -> None:
    num_ids = byte_level.get_vocab_size()
    tokenizer = HuggingFaceTokenizer(byte_level.to_str(), vocab_size=num_ids + 2)
    assert tokenizer.vocab_size == num_ids + 2
    assert tokenizer.decode([num_ids, *tokenizer.encode("a"), num_ids + 1]) == "a"
    assert tokenizer.id_to_piece(num_ids + 1) == f"<unused:{num_ids + 1}>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eos": [10_000]}, r"eos=10000 is none of its \d+ tokens"),
        ({"eos": ["</nothing>"]}, r"eos='</nothing>' is none of its"),
        ({"bos": -1}, r"bos=-1 is none of its"),
        ({"vocab_size": 100}, r"has \d+ ids, more than the model's vocab_size=100"),
    ],
)
def test_arguments_that_disagree_are_named(
    byte_level: tokenizers.Tokenizer, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        HuggingFaceTokenizer(byte_level.to_str(), **arguments)


def test_a_vocabulary_whose_text_spells_control_tokens_is_refused() -> None:
    unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0)], 0))
    unigram.add_special_tokens(["</s>"])
    unigram.decoder = decoders.Metaspace()
    with pytest.raises(TokenizerError, match=r"spells the control token 1 \(</s>\)"):
        HuggingFaceTokenizer(unigram.to_str())


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (None, "no decoder"),
        ({"type": "WordPiece", "prefix": "##", "cleanup": True}, "unsupported decoder step"),
        ({"type": "Strip", "content": " ", "start": 2, "stop": 0}, "unsupported decoder step"),
    ],
)
def test_unsupported_decoders_are_named(
    byte_level: tokenizers.Tokenizer, decoder: object, message: str
) -> None:
    fields = json.loads(byte_level.to_str()) | {"decoder": decoder}
    with pytest.raises(TokenizerError, match=message):
        HuggingFaceTokenizer(json.dumps(fields))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 3, "decoder": {"type": "Fuse"}}'])
def test_damaged_files_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        HuggingFaceTokenizer.from_file(path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a tokenizer\.json"):
        HuggingFaceTokenizer.from_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"absent\.json: No such file"):
        HuggingFaceTokenizer.from_file(tmp_path / "absent.json")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
