import pytest

from api.logprobs import LogprobsWriter, token_text
from model.tokenizer import SentencePieceTokenizer
from model.training.tokenizer import train_sentencepiece
from serving.request import TokenLogprob

TEXT = "It was the best of times, it was the worst of times — naïve façade …\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    out = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return SentencePieceTokenizer.from_file(
        train_sentencepiece([TEXT * 20], vocab_size=320, out=out)
    )


def scored(token_ids):
    return [TokenLogprob(token_id=i, logprob=-1.0, top=((i, -1.0),)) for i in token_ids]


def test_offsets_point_into_the_text(tokenizer):
    text = "the façade of 東京 — times"  # 東京 is in no training text: its tokens are bytes
    ids = tokenizer.encode(text)
    found = LogprobsWriter(tokenizer, at_start=True).write(scored(ids))
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        if token.startswith("bytes:"):
            assert text[offset] in "東京"
        else:
            assert text[offset : offset + len(token)] == token


def test_the_same_in_parts(tokenizer):
    ids = tokenizer.encode(TEXT)
    whole = LogprobsWriter(tokenizer, at_start=True).write(scored(ids))
    writer = LogprobsWriter(tokenizer, at_start=True)
    parts = [writer.write(scored(ids[i : i + 3])) for i in range(0, len(ids), 3)]
    for field, values in whole.items():
        assert [value for part in parts for value in part[field]] == values


def test_tokens_without_text_have_a_name(tokenizer):
    (byte,) = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xe6"]
    assert token_text(tokenizer, byte) == "bytes:\\xe6"
    assert token_text(tokenizer, tokenizer.eos_ids[0]) == "<eod>"


def test_the_token_itself_is_among_its_alternatives(tokenizer):
    first, second, third = tokenizer.encode("It was the")[:3]
    token = TokenLogprob(token_id=third, logprob=-5.0, top=((first, -0.1), (second, -2.0)))
    found = LogprobsWriter(tokenizer, at_start=True).write([token])
    assert list(found["top_logprobs"][0].values()) == [-0.1, -2.0, -5.0]


def test_the_first_token_of_a_prompt_has_no_probability(tokenizer):
    found = LogprobsWriter(tokenizer, at_start=True).write([TokenLogprob(token_id=5, logprob=None)])
    assert found["token_logprobs"] == [None]
    assert found["top_logprobs"] == [None]
