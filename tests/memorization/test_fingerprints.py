"""Fingerprints: the guarantee, the bounds, the stream, and the file."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization.errors import TokenizerMismatchError, TrainingIndexError
from memorization.fingerprint_file import Fingerprints, read_fingerprints, write_fingerprints
from memorization.fingerprint_index import FingerprintIndex
from memorization.fingerprint_stream import FingerprintFilter, FingerprintStream
from memorization.opening import embedded_indexes, open_embedded, open_index
from memorization.rolling_hash import RollingHash, kgram_hashes
from memorization.winnowing import Winnowing, winnow
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer

VOCAB_SIZE = 500
SMALL = Winnowing(k=5, window=4)


def fingerprints(documents: list[list[int]], winnowing: Winnowing = SMALL) -> Fingerprints:
    kept, hashes, starts = [], [], [0]
    for document in documents:
        positions, values = winnow(np.array(document, np.int64), winnowing)
        kept.append(positions + starts[-1])
        hashes.append(values)
        starts.append(starts[-1] + len(document))
    return Fingerprints(
        winnowing=winnowing,
        tokenizer_identity="0" * 64,
        vocab_size=VOCAB_SIZE,
        hashes=np.concatenate(hashes),
        positions=np.concatenate(kept),
        starts=np.array(starts, np.int64),
        names=[(f"d{n}", f"Title {n}", "corpus.jsonl") for n in range(len(documents))],
    )


def longest_common_runs(query: list[int], documents: list[list[int]]) -> list[int]:
    """Length of the longest run that ends at each token of the query."""
    best = [0] * len(query)
    for document in documents:
        tokens = np.array([-1, *document])
        before = np.zeros(len(tokens), np.int64)
        for at, token in enumerate(query):
            before = np.where(tokens == token, np.roll(before, 1) + 1, 0)
            best[at] = max(best[at], int(before.max()))
    return best


@st.composite
def recitals(draw):
    """Documents, and a query that recites pieces of them between tokens of its own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vocab_size = draw(st.sampled_from([3, VOCAB_SIZE]))
    documents = [
        rng.integers(0, vocab_size, size).tolist()
        for size in draw(st.lists(st.integers(0, 60), min_size=1, max_size=4))
    ]
    query: list[int] = []
    for _ in range(draw(st.integers(1, 4))):
        document = documents[int(rng.integers(len(documents)))]
        begin = int(rng.integers(len(document) + 1))
        query += document[begin : begin + int(rng.integers(1, 40))]
        query += rng.integers(0, vocab_size, int(rng.integers(0, 6))).tolist()
    return documents, query


@settings(deadline=None)
@given(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=60), st.integers(1, 12))
def test_rolling_hashes_are_those_of_whole_arrays(tokens, k):
    rolling = RollingHash(k, VOCAB_SIZE)
    one_by_one = [rolling.push(token) for token in tokens]
    assert [h for h in one_by_one if h is not None] == kgram_hashes(np.array(tokens), k).tolist()


@settings(deadline=None)
@given(recitals())
def test_every_run_of_the_guaranteed_length_is_found_within_its_bounds(recital):
    documents, query = recital
    index = FingerprintIndex(fingerprints(documents))
    spans = index.longest_matches(query)
    for end, length in enumerate(longest_common_runs(query, documents), start=1):
        if length >= SMALL.guarantee_tokens:
            assert any(
                span.max_length >= length and span.start < end and span.end > end - length
                for span in spans
            )


@settings(deadline=None)
@given(recitals())
def test_what_is_found_is_in_the_corpus_and_where_it_says(recital):
    documents, query = recital
    for span in FingerprintIndex(fingerprints(documents)).longest_matches(query):
        run = query[span.start : span.end]
        assert span.count >= len(span.occurrences) >= 1
        assert span.length <= span.max_length
        for place in span.occurrences:
            document = documents[int(place.document[1:])]
            assert document[place.offset : place.offset + span.length] == run


@settings(deadline=None)
@given(recitals())
def test_a_stream_never_tells_less_than_the_run_it_is_in(recital):
    documents, query = recital
    stream = FingerprintStream(FingerprintFilter(FingerprintIndex(fingerprints(documents))))
    for token, length in zip(query, longest_common_runs(query, documents), strict=True):
        stream.push(token)
        assert stream.certain <= stream.possible
        if length >= SMALL.guarantee_tokens:
            assert stream.possible >= length


def test_a_text_of_its_own_has_no_runs():
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 250, 5000).tolist()]
    index = FingerprintIndex(fingerprints(documents))
    assert index.longest_matches(rng.integers(250, VOCAB_SIZE, 2000).tolist()) == []
    assert index.longest_matches([]) == []


@settings(max_examples=20, deadline=None)
@given(recitals())
def test_a_file_gives_back_what_was_written(tmp_path_factory, recital):
    prints = fingerprints(recital[0])
    path = tmp_path_factory.mktemp("fingerprints") / "f.bin"
    write_fingerprints(path, prints)
    found = read_fingerprints(path)
    for field in dataclasses.fields(prints):
        np.testing.assert_array_equal(
            getattr(found, field.name), getattr(prints, field.name), err_msg=field.name
        )


@pytest.mark.parametrize("cut", ["head", "end", "middle"])
def test_a_damaged_file_is_refused_by_name(tmp_path, cut):
    path = tmp_path / "f.bin"
    write_fingerprints(path, fingerprints([list(range(100))]))
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-60] ^= 1
    path.write_bytes({"head": whole[3:], "end": whole[:-9], "middle": bytes(changed)}[cut])
    with pytest.raises(TrainingIndexError, match=r"f\.bin"):
        FingerprintIndex.open(path)


@pytest.mark.parametrize(("k", "window", "bits"), [(4, 5, 40), (4, 0, 40), (4, 4, 41)])
def test_parameters_out_of_range_are_named(k, window, bits):
    with pytest.raises(TrainingIndexError, match=r"window=|hash_bits="):
        Winnowing(k=k, window=window, hash_bits=bits)


def test_the_embedded_index_belongs_to_the_embedded_model(tokenizer):
    assert "talipot-tiny" in embedded_indexes()
    folder = resolve_model("talipot-tiny")
    index = open_index("talipot-tiny", load_tokenizer(folder))
    assert index.longest_matches(list(range(300))) == []
    with pytest.raises(TokenizerMismatchError, match="built with the tokenizer"):
        open_index("talipot-tiny", tokenizer)


def test_the_embedded_index_has_every_training_document():
    folder = resolve_model("talipot-tiny")
    listed = (folder / "training-documents.tsv").read_text(encoding="utf-8").splitlines()
    assert open_embedded("talipot-tiny").num_documents == len(listed)


def test_unknown_names_are_refused(tokenizer):
    with pytest.raises(TrainingIndexError, match="no index at nowhere"):
        open_index("nowhere", tokenizer)
    with pytest.raises(TrainingIndexError, match="no index is embedded for 'other'"):
        open_embedded("other")
