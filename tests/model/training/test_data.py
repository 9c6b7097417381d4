"""Documents become tokens, one packed stream, and batches that any step can make again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from model.errors import ConfigError
from model.training.config import DataConfig, Stage, TrainingConfig
from model.training.data import (
    Batches,
    document_hash,
    pack_documents,
    read_documents,
    tokenize_file,
)
from tests.model.training.settings import run_config, write_documents

FIRST = ("The prince walked along the shore.", "", "In 1203 there were two kings …\n")
SECOND = ("It was wisdom.", "A queen swam.")
NUM_WINDOWS = 45


@pytest.fixture
def data(tokenizer_file, tmp_path) -> DataConfig:
    return DataConfig(
        train=(
            str(write_documents(tmp_path / "first.jsonl", FIRST)),
            str(write_documents(tmp_path / "second.jsonl", SECOND)),
        ),
        tokenizer=str(tokenizer_file),
        cache_dir=str(tmp_path / "tokens"),
    )


@pytest.fixture
def config(tokenizer_file, tmp_path) -> TrainingConfig:
    """Eight sequences of 16 tokens, from step 6 on four of 32."""
    stages = (Stage(step=0, batch_size=8, seq_len=16), Stage(step=6, batch_size=4, seq_len=32))
    return dataclasses.replace(run_config(tmp_path, tokenizer_file), stages=stages, steps=1000)


@pytest.fixture
def tokens() -> np.ndarray:
    """Each is its own position, so a window tells where it was cut."""
    return np.arange(NUM_WINDOWS * 16 + 5, dtype=np.int32)


def _documents(stream: np.ndarray, tokenizer) -> list[str]:
    """The texts of a packed stream."""
    (ends,) = np.nonzero(stream == tokenizer.eos_ids[0])
    assert ends[-1] == len(stream) - 1
    return [tokenizer.decode(piece.tolist()) for piece in np.split(stream, ends + 1)[:-1]]


# Files


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.xz"])
def test_documents_are_read_from_plain_and_compressed_files(tmp_path, suffix):
    plain = write_documents(tmp_path / "plain.jsonl", FIRST)
    path = tmp_path / f"corpus{suffix}"
    content = plain.read_bytes()
    path.write_bytes(lzma.compress(content) if suffix.endswith("xz") else content)
    assert list(read_documents(path)) == [(f"plain-{i}", text) for i, text in enumerate(FIRST)]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "1", "text": "cut off',
        b"",
        b'{"id": "1"}',
        b'{"text": "nameless"}',
        b'["1", "text"]',
        b'{"id": "1", "text": null}',
        b'{"id": 1, "text": "a number for a name"}',
        b'{"id": "1", "text": "\xff"}',
        b'{"id": "1", "text": "\\ud800"}',
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, line):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"id": "0", "text": "good"}\n' + line + b"\n")
    documents = read_documents(path)
    assert next(documents) == ("0", "good")
    with pytest.raises(ConfigError, match=r"corpus\.jsonl, line 2: not an object with `id`"):
        next(documents)


def test_lines_are_objects_of_any_further_keys(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"id": "7", "title": "T", "year": None, "text": "t"}))
    assert list(read_documents(path)) == [("7", "t")]


def test_a_damaged_compressed_file_is_named(tmp_path):
    path = tmp_path / "corpus.jsonl.xz"
    path.write_bytes(lzma.compress(b'{"id": "0", "text": "good"}\n' * 1000)[:-20])
    with pytest.raises(ConfigError, match=r"corpus\.jsonl\.xz is damaged"):
        list(read_documents(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl does not exist"):
        list(read_documents(tmp_path / "nowhere.jsonl"))


def test_a_documents_hash_is_that_of_its_utf8_bytes():
    # As `printf '…' | sha256sum` gives it.
    expected = "b4935894c8ce16bde67bbffc672428b1533c4f1e1e8b1ce21a2933183db6bfa5"
    assert document_hash("…") == expected


# Token cache


def test_tokens_of_each_document_end_with_end_of_document(data, tokenizer, tmp_path):
    path, cache = tmp_path / "first.jsonl", tmp_path / "cache"
    tokens, ends = tokenize_file(path, Path(data.tokenizer), cache)
    expected = [[*tokenizer.encode(text), tokenizer.eos_ids[0]] for text in FIRST]
    assert tokens.dtype == np.int32
    assert tokens.tolist() == list(itertools.chain(*expected))
    assert ends.tolist() == list(itertools.accumulate(map(len, expected)))


def _cache_files(data: DataConfig, tmp_path) -> dict[str, int]:
    """Modification times of the cache of `first.jsonl` alone, made or reused."""
    cache = tmp_path / "cache"
    tokenize_file(tmp_path / "first.jsonl", Path(data.tokenizer), cache)
    return {str(path.relative_to(cache)): path.stat().st_mtime_ns for path in cache.rglob("*.npy")}


def test_the_token_cache_is_reused(data, tmp_path):
    made = _cache_files(data, tmp_path)
    assert len(made) == 2
    assert _cache_files(data, tmp_path) == made


def test_a_half_written_token_cache_is_made_again(data, tokenizer, tmp_path):
    (whole,) = {name.split("/")[0] for name in _cache_files(data, tmp_path)}
    folder = tmp_path / "cache" / whole
    (folder / "ends.npy").unlink()
    (folder / "tokens.npy").write_bytes(b"\x93NUMPY cut off")
    tokens, ends = tokenize_file(tmp_path / "first.jsonl", Path(data.tokenizer), folder.parent)
    assert len(tokens) == ends[-1]
    assert _documents(np.asarray(tokens), tokenizer) == list(FIRST)


def test_changed_text_is_tokenized_anew(data, tokenizer, tmp_path):
    _cache_files(data, tmp_path)
    path = write_documents(tmp_path / "first.jsonl", ("Another.",))
    tokens, _ = tokenize_file(path, Path(data.tokenizer), tmp_path / "cache")
    assert _documents(np.asarray(tokens), tokenizer) == ["Another."]


def test_a_file_without_documents_is_refused(data, tmp_path):
    (tmp_path / "second.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"second\.jsonl holds no document"):
        pack_documents(data, seed=0)


def test_a_missing_tokenizer_is_named(data, tmp_path):
    missing = dataclasses.replace(data, tokenizer=str(tmp_path / "none.model"))
    with pytest.raises(ConfigError, match=r"none\.model does not exist"):
        pack_documents(missing, seed=0)


# Packing


@pytest.mark.parametrize("repeats", [(), (3, 1), (1, 2)], ids=str)
def test_every_document_comes_as_often_as_it_is_repeated(data, tokenizer, repeats):
    stream = pack_documents(dataclasses.replace(data, repeats=repeats), seed=1)
    first, second = repeats or (1, 1)
    assert sorted(_documents(stream, tokenizer)) == sorted(FIRST * first + SECOND * second)


def test_the_order_of_documents_depends_on_the_seed_alone(data):
    repeated = dataclasses.replace(data, repeats=(20, 20))
    streams = {seed: pack_documents(repeated, seed) for seed in (0, 1)}
    np.testing.assert_array_equal(streams[0], pack_documents(repeated, seed=0))
    assert streams[0].tolist() != streams[1].tolist()


# Batches


def _window_starts(batch: np.ndarray) -> list[int]:
    """Where the windows of a batch were cut; each must be whole."""
    length = batch.shape[1]
    np.testing.assert_array_equal(batch - batch[:, :1], np.tile(np.arange(length), (len(batch), 1)))
    return batch[:, 0].tolist()


def test_an_epoch_covers_every_window_once_and_the_next_does_so_in_another_order(config, tokens):
    batches = Batches(dataclasses.replace(config, stages=config.stages[:1]), tokens)
    starts = [start for step in range(15) for start in _window_starts(batches.at(step))]
    first, second = starts[:NUM_WINDOWS], starts[NUM_WINDOWS : 2 * NUM_WINDOWS]
    # One more token than inputs is cut, so windows that follow each other share it: no target is
    # lost, and nothing but the last few tokens is left out.
    assert sorted(first) == sorted(second) == list(range(0, NUM_WINDOWS * 16, 16))
    assert first != second
    assert first != sorted(first)


def test_each_stage_has_its_own_shape(config, tokens):
    batches = Batches(config, tokens)
    assert batches.at(5).shape == (8, 17)
    assert batches.at(6).shape == (4, 33)
    assert all(start % 32 == 0 for start in _window_starts(batches.at(6)))


def test_a_batch_is_a_function_of_its_step_alone(config, tokens):
    in_order = Batches(config, tokens)
    expected = [in_order.at(step) for step in range(12)]
    another = Batches(config, tokens)
    for step in (11, 3, 6, 5, 0, 9, 3, 10, 1, 7, 2, 8, 4):
        np.testing.assert_array_equal(another.at(step), expected[step])


def test_another_seed_gives_other_batches(config, tokens):
    other = Batches(dataclasses.replace(config, seed=config.seed + 1), tokens)
    assert other.at(0).tolist() != Batches(config, tokens).at(0).tolist()


def test_a_skip_moves_all_later_batches_on(config, tokens):
    batches = Batches(config, tokens)
    skips = [(2, 2), (3, 1)]
    for step, shifted in [(0, 0), (1, 1), (2, 4)]:
        np.testing.assert_array_equal(batches.at(step, skips), batches.at(shifted))
    alone = Batches(dataclasses.replace(config, stages=config.stages[:1]), tokens)
    np.testing.assert_array_equal(batches.at(4, skips), alone.at(4 + 3))


def test_a_skip_reaches_past_the_stage_in_which_it_begins(config, tokens):
    # A spike in the first steps of a stage goes back into the one before; the batches around the
    # spike must not come again.
    batches = Batches(config, tokens)
    np.testing.assert_array_equal(batches.at(6, [(4, 3)]), batches.at(6 + 3))


@pytest.mark.parametrize("length", [1, 8 * 16])
def test_less_text_than_a_batch_is_refused(config, length):
    windows = (length - 1) // 16
    message = f"{length} training tokens make {windows} windows of 16 tokens, fewer than"
    with pytest.raises(ConfigError, match=message):
        Batches(config, np.zeros(length, np.int32))


def test_the_fewest_tokens_of_a_batch_are_enough(config):
    alone = dataclasses.replace(config, stages=config.stages[:1])
    assert Batches(alone, np.zeros(8 * 16 + 1, np.int32)).at(0).shape == (8, 17)
