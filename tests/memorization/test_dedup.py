"""Deduplication against brute force: clusters, repeated passages, and the corpus that is left."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization.build import build_index
from memorization.dedup import signing
from memorization.dedup.clusters import UnionFind, jaccard
from memorization.dedup.cutting import character_spans, without
from memorization.dedup.parameters import DedupParameters
from memorization.dedup.run import deduplicate
from memorization.dedup.substrings import find_repeats, repeated_positions
from memorization.errors import CorpusError, IndexBuildError, TrainingIndexError
from memorization.layout import IndexParameters
from memorization.shingles import split_words
from memorization.suffix_array import PADDING, SEPARATOR, build_suffix_array, store_tokens
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, edited, prose

RUN = 8
SMALL = DedupParameters(min_tokens=20, shard_tokens=1500)


def stored_corpus(documents):
    closing = [SEPARATOR]
    parts = [[*store_tokens(tokens, 9).tolist(), SEPARATOR] for tokens in documents]
    return np.array([value for part in parts for value in part] + PADDING * closing, ">u2")


def brute_repeats(stored, length):
    """(position, first position) of every run that stands earlier without an overlap."""
    first, found = {}, {}
    for position in range(len(stored) - length + 1):
        run = tuple(stored[position : position + length].tolist())
        if SEPARATOR in run:
            continue
        begin = first.setdefault(run, position)
        if position >= begin + length:
            found[position] = begin
    return found


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(tmp_path, records, tokenizer, parameters=SMALL, name="run"):
    source = write_jsonl(tmp_path / "corpus.jsonl", records)
    out = tmp_path / f"{name}.jsonl"
    return deduplicate([source], tokenizer, tmp_path / name, out, parameters), lines_of(out)


def shingles(text, n=SMALL.shingle_words):
    words = split_words(text)
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}


# Two letters and short documents: nearly every run comes again, many of them overlapping.
@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 1), max_size=40), min_size=1, max_size=5))
def test_repeated_positions_are_those_of_a_dictionary(documents):
    stored = stored_corpus(documents)
    positions, firsts = repeated_positions(stored, build_suffix_array(stored), RUN)
    found = dict(zip(positions.tolist(), firsts.tolist(), strict=True))
    assert found == brute_repeats(stored, RUN)


def test_runs_are_found_across_shards_as_within_one(tmp_path, tiny):
    records = corpus(12, words=150)
    for number in (3, 7, 11):
        passage = " ".join(str(records[number - 2]["text"]).split(" ")[30:80])
        records[number]["text"] = f"{prose(40, 900 + number)} {passage} {prose(40, 950 + number)}"
    source = write_jsonl(tmp_path / "c.jsonl", records)
    found = []
    for name, shard_tokens in (("one", 1 << 20), ("many", 1200)):
        parameters = IndexParameters(near=False, shard_tokens=shard_tokens)
        built = build_index([source], tiny, tmp_path / name, parameters)
        found.append(find_repeats(built.generation, 20))
    assert found[0] == found[1]
    assert [(one.document, one.first_document) for one in found[0]] == [(3, 1), (7, 5), (11, 9)]
    assert all(one.end - one.start >= 20 for one in found[0])


def test_a_text_that_repeats_itself_keeps_a_whole_run(tmp_path, tiny):
    _, (line,) = run(tmp_path, [{"text": "and on " * 200}], tiny)
    kept = tiny.encode(line["text"])
    assert SMALL.min_tokens <= len(kept) < 3 * SMALL.min_tokens


def test_near_duplicates_cluster_and_the_first_stays(tmp_path, tiny):
    texts = [prose(300, seed) for seed in range(6)]
    records = [
        {"id": "a", "title": "First", "text": texts[0]},
        {"id": "b", "text": texts[1]},
        {"id": "a2", "text": edited(texts[0], 0.01, 1)},
        {"id": "b2", "text": texts[1]},
        {"id": "a3", "text": edited(texts[0], 0.015, 2)},
        {"id": "far", "text": edited(texts[2], 0.3, 3)},
        {"id": "c", "text": texts[2]},
    ]
    parameters = DedupParameters(exact=False)
    result, lines = run(tmp_path, records, tiny, parameters)
    assert result.clusters.kept.tolist() == [0, 1, 0, 1, 0, 5, 6]
    assert [line["id"] for line in lines] == ["a", "b", "far", "c"]
    assert lines[0] == {"id": "a", "title": "First", "source": "corpus.jsonl", "text": texts[0]}
    for number in (2, 4):
        one, other = shingles(records[0]["text"]), shingles(records[number]["text"])
        expected = len(one & other) / len(one | other)
        assert result.clusters.similarity[number] == pytest.approx(expected)
    assert result.clusters.similarity[3] == 1


def test_every_cluster_is_one_of_brute_force(tmp_path, tiny):
    bases = [prose(120, seed) for seed in range(8)]
    texts = [
        edited(base, share, n) for base in bases for n, share in enumerate((0, 0.01, 0.03, 0.2))
    ]
    records = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    result, _ = run(tmp_path, records, tiny, DedupParameters(exact=False, threshold=0.7))
    sets = [shingles(text) for text in texts]
    expected = UnionFind(len(texts))
    for one in range(len(texts)):
        for other in range(one + 1, len(texts)):
            if len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= 0.7:
                expected.join(one, other)
    assert result.clusters.kept.tolist() == [expected.find(n) for n in range(len(texts))]
    assert len(result.clusters.removed) > 8


def test_a_repeated_passage_is_cut_and_nothing_else(tmp_path, tiny):
    passage = prose(60, 77)
    records = corpus(4)
    records[1]["text"] = f"{records[1]['text']} {passage} Ü{prose(10, 5)}"
    records[3]["text"] = f"“Café” {prose(30, 8)} {passage} {prose(30, 9)}"
    result, lines = run(tmp_path, records, tiny)
    (cut,) = result.cuts
    assert (cut.document, cut.first_document) == (3, 1)
    text = str(records[3]["text"])
    assert lines[3]["text"] == text[: cut.start] + text[cut.start + cut.characters :]
    assert passage[10:-10] in text[cut.start : cut.start + cut.characters]
    assert cut.text == text[cut.start : cut.start + 300][: cut.characters]
    assert [line["text"] for line in lines[:3]] == [record["text"] for record in records[:3]]
    first = tiny.encode(str(records[1]["text"]))[cut.first_start : cut.first_start + 20]
    begin = len(tiny.encode(text[: cut.start]))
    assert tiny.encode(text)[begin : begin + 20] == first


def test_of_what_is_left_nothing_stands_twice(tmp_path, tiny):
    passages = [prose(50, 500 + n) for n in range(4)]
    records = [
        {"text": f"{prose(20, n)} {passages[n % 4]} {prose(20, 100 + n)} {passages[(n + 1) % 4]}"}
        for n in range(12)
    ]
    _, lines = run(tmp_path, records, tiny)
    seen = set()
    for line in lines:
        tokens = tiny.encode(line["text"])
        # Where something was cut out, the ends that meet make new runs.
        runs = {tuple(tokens[at : at + 25]) for at in range(len(tokens) - 24)}
        assert not runs & seen
        seen |= runs


def test_the_same_corpus_gives_the_same_bytes_and_a_second_run_goes_on(tmp_path, tiny):
    records = [*corpus(10), *corpus(5)]
    run(tmp_path, records, tiny, name="one")
    run(tmp_path, records, tiny, name="two")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    result, lines = run(tmp_path, records, tiny, name="one")
    assert (result.written, len(lines)) == (10, 10)


class StoppedError(Exception):
    """What ends a run in its middle."""


@pytest.mark.parametrize("after", [1, 4, 13])
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(tmp_path, tiny, monkeypatch, after):
    monkeypatch.setattr(signing, "_CHECKPOINT_CHARACTERS", 3000)
    records = [*corpus(8), *corpus(4), {"text": prose(90, 7)}, {"text": "end"}]
    source = write_jsonl(tmp_path / "corpus.jsonl", records)
    told = []

    def stop(characters):
        told.append(characters)
        if len(told) > after:
            raise StoppedError

    folders = tmp_path / "whole", tmp_path / "stopped"
    deduplicate([source], tiny, folders[0], tmp_path / "whole.jsonl", SMALL)
    with pytest.raises(StoppedError):
        deduplicate([source], tiny, folders[1], tmp_path / "out.jsonl", SMALL, on_characters=stop)
    told.clear()
    deduplicate(
        [source], tiny, folders[1], tmp_path / "out.jsonl", SMALL, on_characters=told.append
    )
    assert sum(told) == sum(len(str(record["text"])) for record in records)
    if after > 4:
        assert told[0] >= 3000  # it did not begin anew
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    for name in ("signatures.bin", "shingles.bin", "texts.bin", "names.jsonl"):
        one, other = (folder / "signed" / name for folder in folders)
        assert one.read_bytes() == other.read_bytes()


def test_a_document_that_is_all_repeated_is_dropped(tmp_path, tiny):
    records = corpus(1)
    words = str(records[0]["text"]).split(" ")
    records.append({"id": "part", "text": " " + " ".join(words[40:100])})
    result, lines = run(tmp_path, records, tiny)
    assert list(result.emptied) == [1]
    assert [line["id"] for line in lines] == ["d0"]


@given(st.text(alphabet="aé€ 🌴\n", min_size=8, max_size=40), st.data())
def test_cut_spans_fall_between_characters(tiny, text, data):
    tokens = tiny.encode(text)
    start = data.draw(st.integers(0, len(tokens)))
    end = data.draw(st.integers(start, len(tokens)))
    ((first, last),) = character_spans(text, tokens, [(start, end)], tiny)
    before = b"".join(map(tiny.token_bytes, tokens[:start]))
    run = b"".join(map(tiny.token_bytes, tokens[start:end]))
    whole = before + run
    assert first == len(before.decode(errors="ignore")) + (not _is_whole(before))
    assert last == max(first, len(whole.decode(errors="ignore")))
    assert without(text, [(first, last)]) == text[:first] + text[last:]


def _is_whole(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_that_of_sets(one, other):
    expected = len(one & other) / len(one | other) if one | other else 0
    arrays = (np.array(sorted(some), np.uint64) for some in (one, other))
    assert jaccard(*arrays) == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"near": False, "exact": False}, "near and exact are both off"),
        ({"min_tokens": 7}, "min_tokens=7 must be from 8"),
        ({"threshold": 1.0}, "threshold=1.0 must lie between 0 and 1"),
        ({"shingle_words": 0}, "shingle_words=0 must be from 1"),
    ],
)
def test_bad_parameters_are_named(fields, words):
    with pytest.raises(TrainingIndexError, match=words):
        DedupParameters(**fields)


def test_an_empty_corpus_is_refused(tmp_path, tiny):
    with pytest.raises(CorpusError, match="the corpus has no document"):
        run(tmp_path, [], tiny)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, tiny):
    source = write_jsonl(tmp_path / "corpus.jsonl", corpus(2))
    (tmp_path / "work").write_text("a file")
    out = tmp_path / "out.jsonl"
    with pytest.raises(IndexBuildError, match=r"cannot write .*out\.jsonl"):
        deduplicate([source], tiny, tmp_path / "work", out, SMALL)
