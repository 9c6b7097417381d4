"""The n-gram rule against one written with sets of tuples, and the command on files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.audit.contamination import run_contamination
from api.audit.contamination_config import ContaminationConfig
from api.errors import AuditError
from memorization.corpus import Document
from memorization.studies.contamination import measure_contamination
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, edited, prose

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12).map(" ".join)


def document(number, text):
    return Document(id=f"d{number}", title=f"Title {number}", source="test", text=text)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def tuples(text):
    words = text.split()
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


@given(st.lists(st.lists(WORDS, max_size=2), max_size=4), st.lists(WORDS, max_size=4))
def test_counts_are_those_of_sets_of_tuples(examples, texts):
    documents = [document(*item) for item in enumerate(texts)]
    found = measure_contamination(examples, documents, ngram_words=3)
    have = set().union(*map(tuples, texts))
    for one, example in zip(found, examples, strict=True):
        want = set().union(*map(tuples, example))
        assert (one.ngrams, one.found) == (len(want), len(want & have))
        assert (one.document is None) == (one.found == 0)


def test_a_benchmark_is_split_and_its_source_named(tmp_path, capsys):
    records = corpus(5, words=120)
    copied = " ".join(str(records[3]["text"]).split()[20:60])
    examples = [
        {"question": copied.upper(), "answers": ["yes"], "n": 1},
        {"question": prose(40, seed=99), "answers": [], "n": 2},
        {"question": "too short", "answers": ["no"], "n": 3},
        {"question": edited(copied, 0.3, seed=1), "answers": ["yes"], "n": 4},
    ]
    out = tmp_path / "run"
    config = ContaminationConfig(
        benchmark=write_jsonl(tmp_path / "benchmark.jsonl", examples),
        data=write_jsonl(tmp_path / "corpus.jsonl", records),
        fields=("question", "answers"),
        out=out,
    )
    for _ in range(2):  # the same command again writes the same
        run_contamination(config)
        assert capsys.readouterr().out.startswith("2 clean, 1 contaminated, 1 undecided\n")
        split = {
            name: [row["n"] for row in rows_of(out / f"{name}.jsonl")]
            for name in ("clean", "contaminated", "undecided")
        }
        assert split == {"clean": [2, 4], "contaminated": [1], "undecided": [3]}
    rows = rows_of(out / "results.jsonl")
    assert (rows[0]["share"], rows[0]["title"]) == (1.0, "Title 3")
    assert rows[2]["share"] is None
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["contaminated"]["n"] == 3
    assert "Title 3" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"answer": "x"}, "line 1: field 'text' is missing; expected a text or a list of texts"),
        ({"text": 7}, "line 1: field 'text' is 7; expected"),
        ({"text": ["a", None]}, r"line 1: field 'text' is \['a', None\]; expected"),
    ],
)
def test_a_bad_example_is_named(tmp_path, example, words):
    config = ContaminationConfig(
        benchmark=write_jsonl(tmp_path / "benchmark.jsonl", [example]),
        data=write_jsonl(tmp_path / "corpus.jsonl", corpus(1)),
        out=tmp_path / "run",
    )
    with pytest.raises(AuditError, match=words):
        run_contamination(config)
