"""`talipot corpus dedup` on files: the new corpus, the report, and a second run."""

import json

import pytest

from api.corpus.config import DedupConfig
from api.corpus.dedup import run_dedup
from api.errors import AuditError
from memorization.errors import CorpusError, TrainingIndexError
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, edited, prose


@pytest.fixture
def source(tmp_path):
    passage = prose(60, 400)
    records = corpus(6)
    records[2]["text"] = f"{records[2]['text']} {passage} {prose(20, 401)}"
    records[4]["text"] = f"{prose(50, 402)} {passage} {prose(50, 403)}"
    records += [
        {"id": "copy", "title": "The copy", "text": records[1]["text"]},
        {"id": "near", "title": "Nearly", "text": edited(str(records[3]["text"]), 0.01, 5)},
    ]
    return write_jsonl(tmp_path / "books.jsonl", records)


def config(source, out, **fields):
    return DedupConfig(corpus=(str(source),), out=out, **fields)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_removed_is_reported(tmp_path, source):
    out = tmp_path / "out"
    said = run_dedup(config(source, out))
    assert said.startswith("2 of 8 documents removed, 1 passages cut, 6 documents of ")
    assert [line["id"] for line in lines_of(out / "corpus.jsonl")] == [f"d{n}" for n in range(6)]
    copy, near, cut = lines_of(out / "results.jsonl")
    assert (copy["document"], copy["kept_document"], copy["similarity"]) == ("copy", "d1", 1)
    assert (near["title"], near["kept_document"]) == ("Nearly", "d3")
    assert 0.8 <= near["similarity"] < 1
    assert (cut["kind"], cut["document"], cut["first_document"]) == ("passage", "d4", "d2")
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["near"]["removed_documents"] == metrics["near"]["clusters"] == 2
    assert metrics["exact"]["tokens"] == cut["tokens"] >= 50
    left = sum(len(line["text"]) for line in lines_of(out / "corpus.jsonl"))
    assert metrics["left"] == {"documents": 6, "characters": left}
    removed = metrics["near"]["removed_characters"] + metrics["exact"]["characters"]
    assert metrics["characters"] == left + removed
    page = (out / "report.html").read_text()
    assert "talipot corpus dedup" in page
    assert "The copy (books.jsonl)" in page
    assert not (out / "work").exists()
    assert run_dedup(config(source, out)).startswith("was complete already")


def test_a_corpus_without_duplicates_stays_as_it_is(tmp_path):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    run_dedup(config(source, tmp_path / "out"))
    texts = [line["text"] for line in lines_of(tmp_path / "out" / "corpus.jsonl")]
    assert texts == [line["text"] for line in lines_of(source)]
    assert "stands in what was left twice" in (tmp_path / "out" / "report.html").read_text()


def test_other_settings_need_another_folder(tmp_path, source):
    run_dedup(config(source, tmp_path / "out", exact=False))
    with pytest.raises(AuditError, match=r"settings\.threshold was 0\.8 and is 0\.5 now"):
        run_dedup(config(source, tmp_path / "out", exact=False, threshold=0.5))


def test_bad_input_is_named(tmp_path, source):
    with pytest.raises(CorpusError, match="does not exist"):
        run_dedup(config(tmp_path / "none.jsonl", tmp_path / "out"))
    with pytest.raises(TrainingIndexError, match="min_tokens=1 must be from 8"):
        run_dedup(config(source, tmp_path / "out", min_tokens=1))
