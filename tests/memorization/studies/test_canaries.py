"""Canaries: as many as asked, the same every time, and made of whole words."""

import pytest

from memorization.errors import CorpusError
from memorization.studies.canaries import draw_canaries, vocabulary_words
from memorization.studies.passages import Cut

CUT = Cut(prompt_tokens=(25,), continuation_tokens=25)


def test_canaries_are_as_many_as_asked_and_all_different(tiny):
    drawn = draw_canaries(tiny, CUT, {0: 3, 1: 5, 64: 2}, seed=1)
    assert [one.repetitions for one in drawn] == [0] * 3 + [1] * 5 + [64] * 2
    assert (
        len({one.document.text for one in drawn}) == len({one.document.id for one in drawn}) == 10
    )


def test_prompt_and_continuation_are_the_tokens_of_the_document(tiny):
    for one in draw_canaries(tiny, CUT, {1: 20}, seed=2):
        passage = one.passage
        assert len(passage.tokens) == 50
        assert tuple(tiny.encode(passage.prompts[0])) == passage.tokens[:25]
        whole = passage.prompts[0] + passage.continuation
        assert one.document.text[passage.offset :].startswith(whole)
        # A word of one token each: the document's tokens are the passage's and one at each end.
        assert tuple(tiny.encode(" " + one.document.text))[1:-1] == passage.tokens


def test_the_seed_draws_the_same(tiny):
    one, same = (draw_canaries(tiny, CUT, {2: 4}, seed=7) for _ in range(2))
    other = draw_canaries(tiny, CUT, {2: 4}, seed=8)
    assert one == same
    assert one != other


def test_words_are_single_tokens(tiny):
    words = vocabulary_words(tiny)
    assert len(words) > 1000
    assert all(len(tiny.encode(word)) == 1 and word[0] == " " for word in words)


class Letters:
    """A tokenizer without a word."""

    vocab_size = 26

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids):
        return "".join(chr(ord("a") + one) for one in ids)

    def token_bytes(self, token_id):
        return self.decode([token_id]).encode()


def test_a_vocabulary_without_words_is_refused():
    with pytest.raises(CorpusError, match="has 0 words of one token, and canaries need"):
        draw_canaries(Letters(), CUT, {1: 1}, seed=0)
