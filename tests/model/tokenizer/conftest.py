"""Small vocabularies of every family, trained in memory once a session."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from model.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer
from model.training.tokenizer import train_sentencepiece

CORPUS = [
    f'"Chapter {number}," said the old man.\n\nIt was the best of times,  it was {number * 37}.\n'
    f"    A leaf, a talipot leaf, and naïve façades — {word}!\r\n"
    for number, word in enumerate(["manuscripts", "écriture", "Blätter", "writing", "palms"] * 8)
]


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return CORPUS


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    return train_sentencepiece(CORPUS, vocab_size=400, out=out)


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(model_file: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.from_file(model_file)


@pytest.fixture(scope="session")
def byte_level() -> tokenizers.Tokenizer:
    """Like Falcon and Cohere: GPT-2's byte alphabet, a special and an ordinary added token."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(["two words"])
    return tokenizer


def _metaspace_pieces() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainer)
    pieces = tokenizers.Tokenizer(
        models.BPE(
            vocab=tokenizer.get_vocab(),
            merges=_merges(tokenizer),
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    pieces.add_special_tokens(["<unk>", "<s>", "</s>"])
    return pieces


def _merges(tokenizer: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.fixture(scope="session")
def metaspace() -> tokenizers.Tokenizer:
    """SentencePiece-like, with the dummy prefix in the pre-tokenizer and its decoder."""
    tokenizer = _metaspace_pieces()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Metaspace(prepend_scheme="always"), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


@pytest.fixture(scope="session")
def llama_like() -> tokenizers.Tokenizer:
    """SentencePiece-like, with the dummy prefix in the normalizer and a strip in the decoder."""
    tokenizer = _metaspace_pieces()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


@pytest.fixture(scope="session")
def byte_level_tokenizer(byte_level: tokenizers.Tokenizer) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(byte_level.to_str(), bos="<s>", eos=["</s>"])


@pytest.fixture(scope="session")
def metaspace_tokenizer(metaspace: tokenizers.Tokenizer) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(metaspace.to_str(), bos="<s>", eos=["</s>"])


@pytest.fixture(scope="session")
def llama_like_tokenizer(llama_like: tokenizers.Tokenizer) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(llama_like.to_str(), bos="<s>", eos=["</s>"])
