"""The model that is shipped: its size, its provenance, and that it has learned English."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from benchmarks.quantization import FORMS, bits_per_byte, sample
from model.checkpoint import load_pretrained, resolve_model
from model.training.config import DataConfig, TrainingConfig
from model.training.data import document_hash, read_documents
from model.training.evaluation import evaluate, heldout_tokens
from tests.shared_data import shared_file

MAX_WEIGHT_BYTES = 16_000_000
MAX_BITS_PER_BYTE = 1.75
SAMPLE_TOKENS = 32_768
MAX_QUANTIZATION_LOSS = 0.01


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve_model("talipot-tiny")


def documents(folder: Path) -> dict[str, str]:
    """SHA-256 to file of every document that it was trained on."""
    lines = (folder / "training-documents.tsv").read_text(encoding="utf-8").splitlines()
    records = [line.split("\t") for line in lines]
    return {digest: file for file, _, digest in records}


def test_the_weights_are_small(folder):
    assert (folder / "model.safetensors").stat().st_size <= MAX_WEIGHT_BYTES


def test_its_config_made_a_model_of_its_shape(folder):
    config = TrainingConfig.from_toml(folder / "training.toml")
    assert config.model == load_pretrained(folder).config
    assert config.data.heldout not in config.data.train


def test_every_document_is_listed_and_none_is_held_out(folder):
    listed = documents(folder)
    for name in sorted(set(listed.values())):
        for _, text in read_documents(shared_file(f"corpus/{name}")):
            assert listed.pop(document_hash(text), name) == name
    assert not listed
    for _, text in read_documents(shared_file("corpus/books-heldout.jsonl.xz")):
        assert hashlib.sha256(text.encode()).hexdigest() not in documents(folder)


def test_it_predicts_books_that_it_has_not_seen(folder, tmp_path):
    pretrained = load_pretrained(folder, dtype="float32")
    tokenizer_path = folder / "tokenizer.model"
    heldout = shared_file("corpus/books-heldout.jsonl.xz")
    data = DataConfig(
        train=("unused",),
        tokenizer=str(tokenizer_path),
        heldout=str(heldout),
        cache_dir=str(tmp_path),
    )
    found = evaluate(
        pretrained.config,
        pretrained.params,
        heldout_tokens(data),
        tokenizer_path,
        seq_len=1024,
        max_tokens=SAMPLE_TOKENS,
        batch_size=4,
    )
    assert found.bits_per_byte <= MAX_BITS_PER_BYTE


def test_quantized_weights_predict_as_well(folder):
    pretrained = load_pretrained(folder, dtype="float32")
    heldout = shared_file("corpus/books-heldout.jsonl.xz")
    tokens = sample(pretrained, folder, heldout, SAMPLE_TOKENS // 2)
    exact, *others = (bits_per_byte(pretrained, tokens, form) for form in FORMS.values())
    for found in others:
        assert found == pytest.approx(exact, rel=MAX_QUANTIZATION_LOSS)
