"""The lossless vocabulary of Talipot's own models."""

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from model.errors import TokenizerError
from model.tokenizer import SentencePieceTokenizer

HARD_TEXTS = [
    "",
    " ",
    "  two  spaces  around  ",
    "\n\n\n",
    "CRLF\r\nand CR\r",
    "tab\tand\x0bvertical",
    "NUL\x00inside\x00",
    "\x01\x1f\x7f\x85\u2028\u2029",
    "the space symbol ▁, alone ▁▁ and at the end ▁",
    "▁",
    "\u2585\u2047 ⁇ \ufffd",
    "\ufeffbyte order mark",
    "e\u0301 is not é, ﬁ is not fi, \uff21 is not A",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "\U0010ffff\ufffe",
    "<eod><pad><unk><0x41>",
    "नमस्ते مرحبا 你好",
]


def with_examples(function):
    for text in HARD_TEXTS:
        function = example(text=text)(function)
    return function


@with_examples
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_round_trip(sentencepiece_tokenizer: SentencePieceTokenizer, text: str) -> None:
    assert sentencepiece_tokenizer.decode(sentencepiece_tokenizer.encode(text)) == text


@given(text=st.text(alphabet=" ▁\n\r\ta1é<>\x00", max_size=200))
def test_round_trip_of_what_sentencepiece_treats_specially(
    sentencepiece_tokenizer: SentencePieceTokenizer, text: str
) -> None:
    assert sentencepiece_tokenizer.decode(sentencepiece_tokenizer.encode(text)) == text


@given(text=st.text(alphabet="0123456789 x.", max_size=60))
def test_every_digit_is_a_token(sentencepiece_tokenizer: SentencePieceTokenizer, text: str) -> None:
    tokens = [sentencepiece_tokenizer.token_bytes(i) for i in sentencepiece_tokenizer.encode(text)]
    digits = [token for token in tokens if any(chr(byte).isdigit() for byte in token)]
    assert digits == [character.encode() for character in text if character.isdigit()]


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_only_plain_and_byte_pieces_come_out(
    sentencepiece_tokenizer: SentencePieceTokenizer, text: str
) -> None:
    kinds = {sentencepiece_tokenizer.piece_kind(i) for i in sentencepiece_tokenizer.encode(text)}
    assert kinds <= {"normal", "byte"}


def test_ids_are_palms(sentencepiece_tokenizer: SentencePieceTokenizer) -> None:
    tokenizer = sentencepiece_tokenizer
    assert [tokenizer.id_to_piece(i) for i in range(4)] == ["<pad>", "<eod>", "<unk>", "<0x00>"]
    assert [tokenizer.piece_kind(i) for i in range(4)] == ["control", "control", "unknown", "byte"]
    assert (tokenizer.pad_id, tokenizer.eos_ids, tokenizer.unk_id) == (0, (1,), 2)
    assert tokenizer.bos_id is None
    assert [tokenizer.token_bytes(3 + byte) for byte in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]


def test_pieces_can_be_looked_up(sentencepiece_tokenizer: SentencePieceTokenizer) -> None:
    tokenizer = sentencepiece_tokenizer
    for token_id in range(tokenizer.vocab_size):
        assert tokenizer.piece_to_id(tokenizer.id_to_piece(token_id)) == token_id
    assert tokenizer.piece_to_id("no such piece") is None


def test_saved_byte_for_byte(
    sentencepiece_tokenizer: SentencePieceTokenizer, model_file: Path, tmp_path: Path
) -> None:
    sentencepiece_tokenizer.save(tmp_path / "new" / "folder")
    saved = tmp_path / "new" / "folder" / "tokenizer.model"
    assert saved.read_bytes() == model_file.read_bytes()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"absent\.model: No such file"):
        SentencePieceTokenizer.from_file(tmp_path / "absent.model")


@given(cut=st.integers(0, 4000))
def test_a_truncated_file_is_refused(model_file: Path, cut: int) -> None:
    model = model_file.read_bytes()
    with pytest.raises(TokenizerError, match=r"is not a SentencePiece model|lacks|has no|lossless"):
        SentencePieceTokenizer(model[: min(cut, len(model) - 1)])


@given(junk=st.binary(max_size=300))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(TokenizerError):
        SentencePieceTokenizer(junk)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add_dummy_prefix": True}, "no dummy prefix"),
        ({"remove_extra_whitespaces": True}, "spaces kept as written"),
        ({"normalization_rule_name": "nfkc"}, "no Unicode normalization"),
        ({"byte_fallback": False, "vocab_size": 60}, "lacks the piece <0xE2>"),
        ({"eos_id": -1}, "no end-of-document"),
    ],
)
def test_a_lossy_vocabulary_is_refused(
    corpus: list[str], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    lossless = {
        "vocab_size": 400,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_prefix=str(tmp_path / "lossy"),
        model_type="bpe",
        minloglevel=2,
        **(lossless | change),
    )
    with pytest.raises(TokenizerError, match=message):
        SentencePieceTokenizer.from_file(tmp_path / "lossy.model")
