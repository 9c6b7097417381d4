"""Training of the vocabulary: exact size, a fixed sample, nothing lost on the way."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import TokenizerError
from model.tokenizer import SentencePieceTokenizer
from model.training.tokenizer import sample_passages, split_passages, train_sentencepiece


@given(text=st.text(alphabet="ab \n", max_size=300), size=st.integers(1, 50))
def test_passages_join_to_the_text_and_break_before_spaces(text: str, size: int) -> None:
    passages = list(split_passages(text, size=size))
    assert "".join(passages) == text
    assert all(passage.startswith(" ") for passage in passages[1:])
    assert all(len(passage) >= size for passage in passages[:-1])


@given(
    texts=st.lists(st.text(max_size=30), max_size=20),
    max_bytes=st.integers(0, 400),
    seed=st.integers(0, 5),
)
def test_a_sample_is_bounded_and_repeatable(texts: list[str], max_bytes: int, seed: int) -> None:
    sample = sample_passages(texts, max_bytes=max_bytes, seed=seed)
    assert sum(len(passage.encode()) for passage in sample) <= max_bytes
    assert sample == sample_passages(iter(texts), max_bytes=max_bytes, seed=seed)
    assert set(sample) <= set(texts)


def test_a_sample_covers_the_corpus_evenly() -> None:
    texts = [f"{i:04}" for i in range(1000)]
    counts = [0] * 4
    for seed in range(40):
        for text in sample_passages(texts, max_bytes=400, seed=seed):
            counts[int(text) // 250] += 1
    # 4000 draws over four quarters: 1000 each, with a standard deviation below 28.
    assert all(860 <= count <= 1140 for count in counts)


def test_a_sample_larger_than_the_corpus_is_the_corpus() -> None:
    texts = ["one", "two", "three"]
    assert sorted(sample_passages(texts, max_bytes=10_000, seed=3)) == sorted(texts)


@pytest.mark.parametrize("vocab_size", [360, 400])
def test_the_vocabulary_has_exactly_the_size_asked_for(
    corpus: list[str], tmp_path: Path, vocab_size: int
) -> None:
    path = train_sentencepiece(corpus, vocab_size=vocab_size, out=tmp_path / "a" / "b.model")
    assert SentencePieceTokenizer.from_file(path).vocab_size == vocab_size


def test_training_again_gives_the_same_bytes(
    corpus: list[str], model_file: Path, tmp_path: Path
) -> None:
    again = train_sentencepiece(corpus, vocab_size=400, out=tmp_path / "again.model")
    assert again.read_bytes() == model_file.read_bytes()


def test_newlines_and_runs_of_spaces_are_learned(
    sentencepiece_tokenizer: SentencePieceTokenizer,
) -> None:
    tokens = {
        sentencepiece_tokenizer.token_bytes(i) for i in range(sentencepiece_tokenizer.vocab_size)
    }
    assert b"\n" in tokens
    assert any(b"\n\n" in token for token in tokens)
    assert b"  " in tokens


def test_characters_that_the_trainer_trips_over_do_not_drop_their_passage(tmp_path: Path) -> None:
    texts = ["zebra quagga \x00 zebra \u2581 quagga \u2585 zebra quagga"] * 5
    path = train_sentencepiece(texts, vocab_size=275, out=tmp_path / "odd.model")
    tokenizer = SentencePieceTokenizer.from_file(path)
    assert {tokenizer.piece_kind(i) for i in tokenizer.encode("zebra quagga")} == {"normal"}


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        (["a b c"], 259, "vocab_size=259 must exceed the 259 special and byte pieces"),
        (["a b c"], 300, "Vocabulary size too high"),
        (["the quick brown fox jumps over the lazy dog"], 265, "smaller than required_chars"),
        ([], 300, "no character"),
        (["  \n"], 300, "no character"),
    ],
)
def test_impossible_sizes_are_named(
    tmp_path: Path, texts: list[str], vocab_size: int, message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        train_sentencepiece(texts, vocab_size=vocab_size, out=tmp_path / "none.model")
    assert not (tmp_path / "none.model").exists()
