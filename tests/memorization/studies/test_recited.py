"""Marked parts of a text against the index that they are from; bins that fill equally."""

import pytest

from memorization.build import build_index
from memorization.errors import CorpusError
from memorization.layout import IndexParameters
from memorization.opening import open_index
from memorization.studies.binned import draw_by_occurrences
from memorization.studies.occurrences import log_bin
from memorization.studies.passages import Cut
from memorization.studies.recited import traced_parts
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, prose

CUT = Cut(prompt_tokens=(8,), continuation_tokens=8)
LEAST = 10


@pytest.fixture(scope="module")
def records():
    once = corpus(12, words=80)
    copies = [{**once[number], "id": f"{number}-{n}"} for number in (0, 1) for n in range(2)]
    return [*once, *copies]


@pytest.fixture(scope="module")
def source(tmp_path_factory, records):
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "c.jsonl", records)


@pytest.fixture(scope="module")
def index(tmp_path_factory, source, tiny):
    folder = tmp_path_factory.mktemp("index")
    build_index([source], tiny, folder, IndexParameters(near=False))
    return open_index(str(folder), tiny)


def test_parts_join_to_the_text_and_marked_ones_stand_in_the_corpus(index, records, tiny):
    words = str(records[4]["text"]).split(" ")
    one, other = " ".join(words[10:40]), " ".join(words[50:70])
    text = f"Überall {prose(20, 99)} {one} … {prose(15, 98)} {other} 🌴"
    parts = traced_parts(text, tiny, index, min_tokens=LEAST)
    assert "".join(part.text for part in parts) == text
    assert sum(part.tokens for part in parts) == len(tiny.encode(text))
    marked = [part for part in parts if part.span is not None]
    assert [part.span.occurrences[0].document for part in marked] == ["d4", "d4"]
    for part, copied in zip(marked, (one, other), strict=True):
        assert copied[5:-5] in part.text
        assert part.text.strip() in str(records[4]["text"])
        assert part.tokens >= LEAST


def test_overlapping_runs_are_shown_apart(index, records, tiny):
    # The end of one document, which is the beginning of no other: two runs that meet.
    one, other = str(records[5]["text"]), str(records[6]["text"])
    text = one[-200:] + " " + other[:120]
    parts = traced_parts(text, tiny, index, min_tokens=LEAST)
    assert "".join(part.text for part in parts) == text
    documents = [part.span.occurrences[0].document for part in parts if part.span is not None]
    assert documents == ["d5", "d6"]


def test_nothing_is_marked_in_other_text(index, tiny):
    text = prose(60, 12345)
    (part,) = traced_parts(text, tiny, index, min_tokens=20)
    assert (part.text, part.span) == (text, None)
    assert traced_parts("", tiny, index, min_tokens=LEAST) == []


def test_bins_fill_equally_and_hold_what_was_counted(source, index, tiny):
    passages, counts = draw_by_occurrences(
        [source], tiny, CUT, index, per_bin=7, candidates=300, seed=3
    )
    bins = [log_bin(count) for count in counts]
    assert {number: bins.count(number) for number in set(bins)} == {1: 7, 2: 7}
    copied = {"d0", "d1", "0-0", "0-1", "1-0", "1-1"}
    for passage, count in zip(passages, counts, strict=True):
        assert count == (3 if passage.document in copied else 1)
    assert len({passage.tokens for passage in passages}) == len(passages)


def test_bins_that_the_corpus_cannot_fill_stay_short(source, index, tiny):
    _, counts = draw_by_occurrences(
        [source], tiny, CUT, index, per_bin=1 << 20, candidates=50, seed=0
    )
    assert 0 < len(counts) <= 50


def test_a_corpus_without_passages_is_refused(tmp_path, index, tiny):
    short = write_jsonl(tmp_path / "short.jsonl", [{"text": "too short"}])
    with pytest.raises(CorpusError, match=r"short\.jsonl: no passage of 16 tokens was found"):
        draw_by_occurrences([short], tiny, CUT, index, per_bin=1, candidates=9, seed=0)
