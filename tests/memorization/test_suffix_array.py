"""The suffix array against a search that looks everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization.errors import TrainingIndexError
from memorization.suffix_array import (
    PADDING,
    SEPARATOR,
    SuffixArray,
    build_keys,
    build_suffix_array,
    store_tokens,
    stored_dtype,
)

# Few different tokens make long and overlapping matches; 70,000 needs the wider type.
VOCABULARIES = st.sampled_from([2, 3, 5000, 70_000])


@st.composite
def corpora(draw):
    vocab_size = draw(VOCABULARIES)
    tokens = st.sampled_from(sorted({0, 1, 254 % vocab_size, vocab_size // 2, vocab_size - 1}))
    documents = draw(st.lists(st.lists(tokens, max_size=40), min_size=1, max_size=4))
    query = draw(st.lists(tokens, min_size=1, max_size=30))
    return vocab_size, documents, query


def stored(documents: list[list[int]], vocab_size: int):
    closing = np.full(1, SEPARATOR, stored_dtype(vocab_size))
    pieces = [p for d in documents for p in (store_tokens(d, vocab_size), closing)]
    return np.concatenate([*pieces, np.full(PADDING, SEPARATOR, stored_dtype(vocab_size))])


def places_of(run: list[int], documents: list[list[int]]) -> int:
    return sum(
        document[at : at + len(run)] == run
        for document in documents
        for at in range(len(document) - len(run) + 1)
    )


@settings(deadline=None)
@given(corpora())
def test_lengths_and_counts_are_those_of_a_full_search(corpus):
    vocab_size, documents, query = corpus
    tokens = stored(documents, vocab_size)
    suffixes = build_suffix_array(tokens)
    array = SuffixArray(tokens, suffixes, build_keys(tokens, suffixes))
    lengths = array.match_lengths(store_tokens(query, vocab_size))
    for start, length in enumerate(lengths.tolist()):
        longer = query[start : start + length + 1]
        assert places_of(query[start : start + length], documents) or length == 0
        assert start + length == len(query) or not places_of(longer, documents)
    matching = np.flatnonzero(lengths)
    if matching.size:
        first, last = array.ranges(store_tokens(query, vocab_size), matching, lengths[matching])
        for start, low, high in zip(matching.tolist(), first, last, strict=True):
            run = query[start : start + int(lengths[start])]
            assert high - low == places_of(run, documents)
            for position in array.positions(int(low), int(high)).tolist():
                found = tokens[position : position + len(run)]
                assert found.tolist() == store_tokens(run, vocab_size).tolist()


def test_suffixes_are_in_order():
    tokens = stored([[3, 254, 2, 1, 299, 4], [1, 2, 255, 256]], 300)
    values = tokens.tolist()
    suffixes = build_suffix_array(tokens).tolist()  # 256 and more: the order of bytes matters
    assert suffixes == sorted(range(len(values)), key=lambda at: values[at:])


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(TrainingIndexError, match="token id 9 is outside the vocabulary of 9"):
        store_tokens([1, 9], 9)
