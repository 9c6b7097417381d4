"""Builds: what they answer, that they resume, switch at once, and say what is wrong."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memorization.build import build_index
from memorization.disk_index import DiskIndex
from memorization.encode import TextEncoder, WordEncoder, has_word_boundaries, split_text
from memorization.errors import CorpusError, IndexBuildError, TrainingIndexError
from memorization.layout import IndexParameters
from memorization.opening import open_index
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, prose
from tests.shared_data import ROOT

# Several shards, so that what crosses their borders is tested too.
SMALL = IndexParameters(shard_tokens=3000)
_BUILD = """
import sys
from pathlib import Path
from memorization.build import build_index
from memorization.layout import IndexParameters
from memorization import build
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer
build._CHECKPOINT_CHARACTERS = 2000
corpus, out, limit = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
def say(characters):
    print(characters, flush=True)
build_index([Path(corpus)], load_tokenizer(resolve_model("talipot-tiny")), Path(out),
            IndexParameters(shard_tokens=3000), on_characters=say)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


_LONG_LINE = """
import resource, sys
from pathlib import Path
from memorization.build import build_index
from memorization.layout import IndexParameters
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer
tiny = load_tokenizer(resolve_model("talipot-tiny"))
warm, corpus, out = map(Path, sys.argv[1:])
build_index([warm], tiny, out / "warm", IndexParameters(exact=False))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build_index([corpus], tiny, out / "long", IndexParameters(exact=False))
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def start_build(source: Path, out: Path, limit_bytes: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(source), str(out), str(limit_bytes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_runs_are_found_with_document_offset_and_count(tmp_path, tiny):
    records = corpus(30)
    records.append({"id": "again", "text": str(records[4]["text"]) + " And more."})
    source = write_jsonl(tmp_path / "c.jsonl", records)
    build_index([source], tiny, tmp_path / "index", SMALL)
    index = open_index(str(tmp_path / "index"), tiny)
    recited = tiny.encode(str(records[4]["text"]))[20:120]
    query = [*tiny.encode("Something else"), *recited, *tiny.encode(" Something else")]
    (span,) = index.longest_matches(query, min_tokens=50)
    begin = len(tiny.encode("Something else"))
    assert span.start <= begin
    assert span.end >= begin + len(recited)
    assert span.count == 2
    assert [(o.document, o.title, o.source) for o in span.occurrences] == [
        ("d4", "Title 4", "c.jsonl"),
        ("again", "", "c.jsonl"),
    ]
    assert {o.offset for o in span.occurrences} == {20 - (begin - span.start)}


def test_no_run_reaches_over_the_end_of_a_document(tmp_path, tiny):
    texts = [prose(40, 1), prose(40, 2)]
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in texts])
    build_index([source], tiny, tmp_path / "index")
    first, second = (tiny.encode(text) for text in texts)
    lengths = DiskIndex.open(tmp_path / "index").match_lengths([*first, *second])
    assert lengths[0] == len(first)
    assert lengths[len(first)] == len(second)


def test_lengths_over_shards_are_those_of_one(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(20))
    build_index([source], tiny, tmp_path / "one")
    build_index([source], tiny, tmp_path / "many", IndexParameters(shard_tokens=1))
    query = tiny.encode(prose(150, 3) + prose(150, 10_003))
    one, many = (DiskIndex.open(tmp_path / name) for name in ("one", "many"))
    np.testing.assert_array_equal(one.match_lengths(query), many.match_lengths(query))
    counts = [[s.count for s in index.longest_matches(query)] for index in (one, many)]
    assert counts[0] == counts[1]


def test_two_builds_give_the_same_bytes(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(40))
    for name in ("a", "b"):
        build_index([source], tiny, tmp_path / name, SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert build_index([source], tiny, tmp_path / "a", SMALL).was_complete


def test_a_killed_build_goes_on_and_gives_the_same_bytes(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(250))
    build_index([source], tiny, tmp_path / "whole", SMALL)
    began = 0
    for documents in (60, 150):
        process = start_build(source, tmp_path / "killed")
        assert process.stdout is not None
        began = int(process.stdout.readline())
        for _ in range(documents):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with pytest.raises(TrainingIndexError, match="a build was begun"):
            DiskIndex.open(tmp_path / "killed")
    assert began > 0  # the second run did not begin anew
    process = start_build(source, tmp_path / "killed")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_full_disk_is_a_clean_error_and_the_build_goes_on(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(100))
    build_index([source], tiny, tmp_path / "whole", SMALL)
    process = start_build(source, tmp_path / "full", limit_bytes=8_000)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "IndexBuildError: cannot write the index" in errors
    assert "make room there and run the same command again" in errors
    process = start_build(source, tmp_path / "full")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_an_open_index_answers_while_a_newer_one_takes_its_place(tmp_path, tiny):
    for seed in (1, 2):
        write_jsonl(tmp_path / f"{seed}.jsonl", corpus(20, seed=seed))
    build_index([tmp_path / "1.jsonl"], tiny, tmp_path / "index", SMALL)
    old = DiskIndex.open(tmp_path / "index")
    texts = [tiny.encode(prose(200, seed * 10_000)) for seed in (1, 2)]
    build_index([tmp_path / "2.jsonl"], tiny, tmp_path / "index", SMALL)
    new = DiskIndex.open(tmp_path / "index")
    for index, has in ((old, (True, False)), (new, (False, True))):
        found = tuple(bool(index.longest_matches(text, min_tokens=50)) for text in texts)
        assert found == has
    assert len([p for p in (tmp_path / "index").iterdir() if p.is_dir()]) == 1


def test_a_build_that_fails_leaves_the_old_index_served(tmp_path, tiny):
    source = write_jsonl(tmp_path / "good.jsonl", corpus(5))
    build_index([source], tiny, tmp_path / "index", SMALL)
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(source.read_bytes() + b"\xff\n")
    with pytest.raises(CorpusError, match=r"bad\.jsonl, line 6: byte 0 is not UTF-8"):
        build_index([bad], tiny, tmp_path / "index", SMALL)
    index = DiskIndex.open(tmp_path / "index")
    assert index.longest_matches(tiny.encode(prose(200, 3)), min_tokens=50)


def test_an_empty_corpus_is_an_error(tmp_path, tiny):
    (tmp_path / "c.jsonl").write_bytes(b"\n\n")
    with pytest.raises(CorpusError, match="has no document"):
        build_index([tmp_path / "c.jsonl"], tiny, tmp_path / "index")


def test_documents_may_be_empty_or_share_an_id(tmp_path, tiny):
    records = [{"id": "x", "text": prose(90, 1)}, {"id": "x", "text": ""}, {"id": "x", "text": "a"}]
    source = write_jsonl(tmp_path / "c.jsonl", [*records, records[0]])
    assert build_index([source], tiny, tmp_path / "index").documents == 4
    index = DiskIndex.open(tmp_path / "index")
    (span,) = index.longest_matches(tiny.encode(prose(90, 1)), min_tokens=50)
    assert (span.count, [o.document for o in span.occurrences]) == (2, ["x", "x"])
    assert index.longest_matches([]) == []
    assert index.near_duplicates("") == []


def test_a_very_long_line_is_one_document(tmp_path, tiny):
    text = prose(3000, 1) + "x" * 300_000 + prose(3000, 2)
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": "long", "text": text}])
    build_index([source], tiny, tmp_path / "index", IndexParameters(near=False))
    index = DiskIndex.open(tmp_path / "index")
    for seed in (1, 2):
        spans = index.longest_matches(tiny.encode(prose(300, seed)), min_tokens=500)
        assert [o.document for s in spans for o in s.occurrences] == ["long"]


def test_a_long_line_takes_memory_in_proportion(tmp_path):
    """Reading, cutting and signing a line take less than 16 bytes for each of its characters."""
    text = " ".join(prose(5000, seed) for seed in range(10)) + " "
    characters = 16_000_000
    write_jsonl(tmp_path / "warm.jsonl", corpus(20))
    write_jsonl(tmp_path / "long.jsonl", [{"text": (text * (characters // len(text) + 1))}])
    arguments = [str(tmp_path / name) for name in ("warm.jsonl", "long.jsonl", "")]
    ran = subprocess.run(
        [sys.executable, "-c", _LONG_LINE, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) < 16 * characters


def test_one_build_at_a_time(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(400))
    process = start_build(source, tmp_path / "index")
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(IndexBuildError, match="another process is building"):
        build_index([source], tiny, tmp_path / "index")
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", ["tokens.bin", "suffixes.bin", "signatures.bin"])
def test_a_damaged_index_is_named(tmp_path, tiny, name):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    made = build_index([source], tiny, tmp_path / "index")
    path = made.generation / "shard-00000" / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TrainingIndexError, match=name):
        DiskIndex.open(tmp_path / "index")
    path.unlink()
    with pytest.raises(TrainingIndexError, match="is damaged"):
        DiskIndex.open(tmp_path / "index")


def test_an_index_of_another_version_is_refused(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    made = build_index([source], tiny, tmp_path / "index")
    manifest = made.generation / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(TrainingIndexError, match="has version 1, and this release reads 2: build"):
        DiskIndex.open(tmp_path / "index")


def test_what_was_not_indexed_is_refused(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    build_index([source], tiny, tmp_path / "near", IndexParameters(exact=False))
    build_index([source], tiny, tmp_path / "exact", IndexParameters(near=False))
    with pytest.raises(TrainingIndexError, match="built without exact"):
        DiskIndex.open(tmp_path / "near").longest_matches([1])
    with pytest.raises(TrainingIndexError, match="built without near"):
        DiskIndex.open(tmp_path / "exact").near_duplicates("text")
    with pytest.raises(TrainingIndexError, match="both off"):
        IndexParameters(near=False, exact=False)


def test_words_one_by_one_give_the_tokens_of_the_text(tiny):
    assert has_word_boundaries(tiny)
    encode = WordEncoder(tiny)
    for text in (
        prose(500, 1),
        "  two  spaces \n\n and\u2581more ",
        "x" * 500,
        "",
        " ",
        "é\u00a0 ü",
    ):
        expected = np.asarray(tiny.encode(text), np.int64) + 2
        np.testing.assert_array_equal(encode(text).astype(np.int64), expected)
        np.testing.assert_array_equal(TextEncoder(tiny)(text).astype(np.int64), expected)


def test_a_long_text_is_cut_where_a_word_begins():
    text = prose(20_000, 1)
    pieces = split_text(text, 1000)
    assert "".join(pieces) == text
    assert all(piece.startswith(" ") for piece in pieces[1:])
    assert max(map(len, split_text("x" * 5000, 1000))) == 1000


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Four times the text takes no more memory, give or take what Python keeps."""
    peaks = []
    for factor in (1, 4):
        source = write_jsonl(tmp_path / f"{factor}.jsonl", corpus(100 * factor, words=400))
        process = start_build(source, tmp_path / f"index-{factor}")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    assert peaks[1] < peaks[0] * 1.25
