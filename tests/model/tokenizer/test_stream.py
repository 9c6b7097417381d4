"""What holds for every family of tokenizers: streamed text is the decoded text."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tokenizer import StreamDecoder, Tokenizer, TokenizerInputError

FAMILIES = [
    "sentencepiece_tokenizer",
    "byte_level_tokenizer",
    "metaspace_tokenizer",
    "llama_like_tokenizer",
]

# Hypothesis leaves surrogates out of text() only if told to.
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="session", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


def stream(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@given(text=unicode_text)
def test_streamed_text_is_the_decoded_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@given(data=st.data())
def test_any_ids_stream_to_what_they_decode_to(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@given(data=st.data())
def test_byte_tokens_in_any_order_stream_to_what_they_decode_to(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    single_bytes = [i for i in range(tokenizer.vocab_size) if len(tokenizer.token_bytes(i)) == 1]
    ids = data.draw(st.lists(st.sampled_from(single_bytes), max_size=40))
    raw = b"".join(
        tokenizer.token_bytes(token_id, at_start=i == 0) for i, token_id in enumerate(ids)
    )
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == raw.decode(errors="replace")


@given(text=unicode_text)
def test_each_push_releases_all_whole_characters_and_no_part_of_one(
    tokenizer: Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text)
    decoder = StreamDecoder(tokenizer)
    released = received = b""
    for i, token_id in enumerate(ids):
        received += tokenizer.token_bytes(token_id, at_start=i == 0)
        released += decoder.push(token_id).encode()
        complete, _ = codecs.utf_8_decode(received, "strict", False)
        assert released == complete.encode()


@pytest.mark.parametrize("character", ["é", "‰", "👩"])
def test_a_cut_character_ends_as_one_replacement(tokenizer: Tokenizer, character: str) -> None:
    by_byte = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    ids = [by_byte[bytes([byte])] for byte in character.encode()[:-1]]
    assert stream(tokenizer, ids) == [""] * len(ids) + ["\ufffd"]


def test_end_and_control_tokens_are_silent(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.eos_ids, *tokenizer.encode("a leaf"), *tokenizer.eos_ids]
    assert tokenizer.decode(ids) == "".join(stream(tokenizer, ids)) == "a leaf"


@pytest.mark.parametrize("offset", [-1, 0, 1000])
def test_ids_outside_the_vocabulary_are_named(tokenizer: Tokenizer, offset: int) -> None:
    token_id = -1 if offset < 0 else tokenizer.vocab_size + offset
    message = f"token id {token_id} is outside the vocabulary of {tokenizer.vocab_size} tokens"
    for use in (
        lambda: tokenizer.decode([token_id]),
        lambda: tokenizer.token_bytes(token_id),
        lambda: tokenizer.id_to_piece(token_id),
        lambda: StreamDecoder(tokenizer).push(token_id),
    ):
        with pytest.raises(TokenizerInputError, match=message):
            use()


def test_lone_surrogates_are_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerInputError, match=r"lone surrogate U\+D83D at index 3"):
        tokenizer.encode("ab \ud83d")
    with pytest.raises(ValueError, match="surrogate"):
        tokenizer.encode("\udc80")


@given(text=unicode_text, data=st.data())
def test_no_text_spells_a_control_token(
    tokenizer: Tokenizer, text: str, data: st.DataObject
) -> None:
    silent = [i for i in range(tokenizer.vocab_size) if not tokenizer.token_bytes(i)]
    spelled = tokenizer.id_to_piece(data.draw(st.sampled_from(silent)))
    assert not set(silent) & set(tokenizer.encode(text + spelled + text))
