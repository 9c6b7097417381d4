import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.token_ends import TokenEnds, TokenLengths
from model.tokenizer import StreamDecoder, load_tokenizer
from tests.tiny_tokenizer import VOCAB_SIZE, train_tiny_tokenizer

# One beyond the vocabulary: a padding row of an imported model.
TOKENS = st.lists(st.integers(0, VOCAB_SIZE), max_size=60)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tiny_tokenizer(folder)
    return load_tokenizer(folder)


def real_ends(tokenizer, prompt, tokens):
    """Characters of the text up to each token's end, a character that is begun counted."""
    is_silent = not any(tokenizer.token_bytes(token) for token in prompt)
    decoder = StreamDecoder(tokenizer, at_start=is_silent)
    ends, length = [], 0
    for token in tokens:
        if token < tokenizer.vocab_size:
            length += len(decoder.push(token))
        ends.append(length + decoder.is_mid_character)
    return ends


@given(prompt=st.sampled_from(["", "It was"]), tokens=TOKENS, data=st.data())
def test_tokens_end_where_their_text_does_however_they_arrive(tokenizer, prompt, tokens, data):
    prompt, lengths = tokenizer.encode(prompt), TokenLengths(tokenizer)
    expected = real_ends(tokenizer, prompt, tokens)
    ends = TokenEnds(lengths, prompt, echo=False)
    assert [ends.push(token) for token in tokens] == expected
    ends, found = TokenEnds(lengths, prompt, echo=False), []
    rest = list(tokens)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += ends.extend(rest[:size])
        rest = rest[size:]
    assert found == expected


def test_no_tokens_have_no_ends(tokenizer):
    assert TokenEnds(TokenLengths(tokenizer), (), echo=False).extend([]) == []
