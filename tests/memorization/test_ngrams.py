"""Filters of n-grams: none of the corpus is missing, and few others are taken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorization.build import build_index
from memorization.corpus import corpus_files, read_corpus
from memorization.disk_index import DiskIndex
from memorization.encode import encode_documents
from memorization.errors import TrainingIndexError
from memorization.fingerprint_build import collect_fingerprints
from memorization.fingerprint_index import FingerprintIndex
from memorization.layout import IndexParameters
from memorization.ngram_filter import (
    BITS_PER_NGRAM,
    contains,
    empty_words,
    insert,
    stored_ngrams,
)
from memorization.opening import open_embedded
from memorization.rolling_hash import kgram_hashes
from memorization.suffix_array import ID_SHIFT, SEPARATOR
from memorization.winnowing import Winnowing
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus

_rng = np.random.default_rng(5)


def random_hashes(count: int) -> np.ndarray:
    return _rng.integers(0, 1 << 63, count, dtype=np.uint64)


def test_a_filter_misses_nothing_and_errs_about_once_in_a_thousand():
    inside = random_hashes(100_000)
    words = empty_words(len(inside))
    assert words.nbytes * 8 == pytest.approx(BITS_PER_NGRAM * len(inside), rel=0.001)
    insert(words, inside)
    assert contains(words, inside).all()
    errors = int(contains(words, random_hashes(1_000_000)).sum())
    # 1,320 were measured for 4,000,000 n-grams; five standard deviations around.
    assert 1100 < errors < 1550


def test_what_comes_in_parts_gives_the_same_filter():
    hashes = random_hashes(3000)
    together, apart = empty_words(500), empty_words(500)
    insert(together, hashes)
    for part in np.array_split(hashes[::-1], 7):
        insert(apart, part)
    assert (together == apart).all()


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=5),
    st.integers(2, 5),
    st.integers(1, 9),
)
def test_ngrams_of_stored_tokens_are_those_of_each_document(documents, ngram, chunk):
    stored = [
        value for document in documents for value in (*(t + ID_SHIFT for t in document), SEPARATOR)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memorization.ngram_filter._CHUNK", chunk)
        found = [h for part in stored_ngrams(np.array(stored, ">u2"), ngram) for h in part.tolist()]
    expected = [
        h for document in documents for h in kgram_hashes(np.array(document), ngram).tolist()
    ]
    assert found == expected


def test_an_index_has_every_ngram_of_its_corpus(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(30))
    parameters = IndexParameters(near=False, shard_tokens=3000, ngram=10)
    made = build_index([source], tiny, tmp_path / "index", parameters)
    ngrams = DiskIndex.open(tmp_path / "index").ngrams()
    assert ngrams is not None
    assert (ngrams.ngram, ngrams.guarantee_tokens) == (10, 10)
    for _, stored in encode_documents(read_corpus(corpus_files([source])), tiny):
        hashes = kgram_hashes(stored.astype(np.int64) - ID_SHIFT, 10)
        assert len(hashes) > 100
        assert contains(ngrams.words, hashes).all()
    assert contains(ngrams.words, random_hashes(100_000)).mean() < 0.002
    assert ngrams.words.nbytes == pytest.approx(made.tokens * BITS_PER_NGRAM / 8, abs=32)


def test_an_index_without_a_filter_says_so(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    build_index([source], tiny, tmp_path / "index", IndexParameters(near=False))
    assert DiskIndex.open(tmp_path / "index").ngrams() is None


def test_a_damaged_filter_is_named(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    made = build_index([source], tiny, tmp_path / "index", IndexParameters(near=False, ngram=5))
    path = made.generation / "ngrams.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(
        TrainingIndexError, match=r"ngrams\.bin has \d+ bytes, and the manifest says"
    ):
        DiskIndex.open(tmp_path / "index")


def test_a_long_run_has_an_ngram_of_the_fingerprints(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(10))
    winnowing = Winnowing(k=6, window=5)
    index = FingerprintIndex(collect_fingerprints([source], tiny, winnowing))
    ngrams = index.ngrams()
    assert (ngrams.ngram, ngrams.guarantee_tokens) == (6, 10)
    mask = np.uint64((1 << ngrams.hash_bits) - 1)
    for _, stored in encode_documents(read_corpus(corpus_files([source])), tiny):
        found = contains(ngrams.words, kgram_hashes(stored.astype(np.int64) - ID_SHIFT, 6) & mask)
        runs = np.lib.stride_tricks.sliding_window_view(found, 10 - 6 + 1)
        assert runs.any(axis=1).all()
        assert not found.all()


def test_the_embedded_fingerprints_give_a_filter():
    ngrams = open_embedded("talipot-tiny").ngrams()
    assert (ngrams.ngram, ngrams.guarantee_tokens) == (24, 47)
    assert contains(ngrams.words, random_hashes(200_000) & np.uint64((1 << 40) - 1)).mean() < 0.002


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ngram": 3}, ["ngram=3", "4 to 64"]),
        ({"ngram": 65}, ["ngram=65", "4 to 64"]),
        ({"ngram": 10, "exact": False}, ["ngram=10", "exact"]),
    ],
)
def test_errors_name_field_value_and_limit(fields, words):
    with pytest.raises(TrainingIndexError) as caught:
        IndexParameters(**fields)
    assert all(word in str(caught.value) for word in words)
