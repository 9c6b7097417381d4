"""Passages are where they say they are, are drawn by the seed, and are counted in an index."""

import pytest

from memorization.corpus import read_corpus
from memorization.errors import CorpusError
from memorization.studies.occurrences import bin_name, log_bin, occurrences
from memorization.studies.passages import Cut, draw_passages
from tests.memorization.conftest import write_jsonl
from tests.memorization.exact_index import ExactIndex
from tests.memorization.texts import corpus

CUT = Cut(prompt_tokens=(20, 8), continuation_tokens=10)


@pytest.fixture
def path(tmp_path):
    return write_jsonl(tmp_path / "corpus.jsonl", [*corpus(6), {"id": "short", "text": "a b"}])


def test_a_passage_is_the_text_at_its_offset(path, tiny):
    texts = {document.id: document.text for document in read_corpus([path])}
    passages = draw_passages([path], tiny, CUT, count=40, seed=1)
    for passage in passages:
        whole = passage.prompts[0] + passage.continuation
        assert texts[passage.document][passage.offset :].startswith(whole)
        assert whole.startswith(" ")
        assert tiny.decode(passage.tokens) == whole
        assert passage.prompts[0].endswith(passage.prompts[1])
        for prompt, length in zip(passage.prompts, CUT.prompt_tokens, strict=True):
            assert tiny.encode(prompt) == list(passage.tokens[20 - length : 20])
    assert len({(one.document, one.offset) for one in passages}) == 40
    assert len({one.document for one in passages}) == 6
    assert passages == draw_passages([path], tiny, CUT, count=40, seed=1)
    assert passages != draw_passages([path], tiny, CUT, count=40, seed=2)


def test_a_corpus_that_is_too_small_is_named(path, tiny):
    with pytest.raises(CorpusError, match=r"corpus\.jsonl: only \d+ of 2000 passages of 30 tok"):
        draw_passages([path], tiny, CUT, count=2_000, seed=0)
    with pytest.raises(CorpusError, match="only 0 of 1 passages of 5050 tokens"):
        draw_passages([path], tiny, Cut(prompt_tokens=(5000,)), count=1, seed=0)


@pytest.mark.parametrize("lengths", [(), (0,), (5, 5)])
def test_bad_lengths_are_named(lengths):
    with pytest.raises(ValueError, match="prompt_tokens="):
        Cut(prompt_tokens=lengths)


def test_whole_passages_are_counted(path, tiny):
    (passage,) = draw_passages([path], tiny, CUT, count=1, seed=0)
    tokens = list(passage.tokens)
    index = ExactIndex([[1, 2, *tokens], tokens[1:], [*tokens, 3], tokens])
    assert occurrences(index, tokens) == 3
    assert occurrences(ExactIndex([tokens[1:], tokens[:-1]]), tokens) == 0


def test_bins_double():
    assert [log_bin(count) for count in (0, 1, 2, 3, 4, 7, 8)] == [0, 1, 2, 2, 3, 3, 4]
    assert [bin_name(number) for number in range(4)] == ["0", "1", "2-3", "4-7"]
