"""What the device says of an n-gram is what the package says that put it in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorization.ngram_filter import contains, empty_words, insert
from memorization.rolling_hash import kgram_hashes
from model.errors import ConfigError
from serving.ngram_filter import NgramFilter, newest_tokens

ROWS = 1024
_ENDS = jax.jit(lambda ngrams, recent, tokens: ngrams.ends(ngrams.prefixes(recent), tokens))
_rng = np.random.default_rng(0)


def device_says(ngrams: NgramFilter, grams: np.ndarray) -> list[bool]:
    recent = np.concatenate([np.zeros((len(grams), 1), np.int64), grams[:, :-1]], axis=1)
    return np.asarray(
        _ENDS(ngrams, jnp.asarray(recent, jnp.int32), jnp.asarray(grams[:, -1], jnp.int32))
    ).tolist()


@pytest.mark.parametrize(("ngram", "bits"), [(2, 64), (10, 64), (24, 40), (64, 32)])
def test_the_device_finds_what_the_host_put_in(ngram, bits):
    tokens = _rng.integers(0, 260_000, 5000)
    hashes = kgram_hashes(tokens, ngram) & np.uint64((1 << bits) - 1)
    words = empty_words(len(hashes) // 4)  # so small that it takes many others for its own
    insert(words, hashes)
    ngrams = NgramFilter(words=words, ngram=ngram, hash_bits=bits)
    inside = np.lib.stride_tricks.sliding_window_view(tokens, ngram)[:ROWS]
    assert all(device_says(ngrams, inside))
    others = _rng.integers(0, 260_000, (ROWS, ngram))
    expected = contains(
        words,
        np.concatenate([kgram_hashes(row, ngram) for row in others]) & np.uint64((1 << bits) - 1),
    )
    assert 0 < expected.sum() < len(expected)
    assert device_says(ngrams, others) == expected.tolist()


@given(st.lists(st.integers(0, 300), min_size=3, max_size=40), st.integers(2, 8))
def test_the_newest_tokens_are_those_of_the_sequence(tokens, ngram):
    newest = newest_tokens(tokens, ngram).tolist()
    assert len(newest) == ngram
    assert ([-1] * ngram + tokens)[-ngram:] == newest


def test_a_sequence_shorter_than_an_ngram_ends_none():
    full = NgramFilter(words=np.full((1, 8), 0xFFFFFFFF, np.uint32), ngram=3)
    recent = jnp.array([[-1, -1, 7], [-1, 7, 7], [7, 7, 7]], jnp.int32)
    assert _ENDS(full, recent, jnp.full(3, 7, jnp.int32)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ngram": 1}, ["ngram=1", "2 to 64"]),
        ({"ngram": 65}, ["ngram=65", "2 to 64"]),
        ({"hash_bits": 31}, ["hash_bits=31", "32 to 64"]),
        ({"words": np.zeros((0, 8), np.uint32)}, ["words=uint32[0, 8]", "at least one block"]),
        ({"words": np.zeros((4, 8), np.int32)}, ["words=int32[4, 8]", "uint32[blocks, 8]"]),
    ],
)
def test_errors_name_field_value_and_limit(fields, words):
    with pytest.raises(ConfigError) as caught:
        NgramFilter(**{"words": np.zeros((1, 8), np.uint32), "ngram": 4, **fields})
    assert all(word in str(caught.value) for word in words), caught.value
