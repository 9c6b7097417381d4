"""Corpora of every kind, and what is wrong with them, by file, line and field."""

import bz2
import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization.corpus import Document, corpus_files, read_corpus
from memorization.errors import CorpusError

RECORDS = [{"id": "a", "title": "A", "text": "first"}, {"text": "second é"}, {"id": 7, "text": ""}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def read(path):
    return list(read_corpus(corpus_files([path])))


@pytest.mark.parametrize("suffix", PACK)
def test_json_lines_plain_and_compressed(tmp_path, suffix):
    name = f"c.jsonl{suffix}"
    (tmp_path / name).write_bytes(PACK[suffix](LINES))
    assert read(tmp_path / name) == [
        Document(id="a", title="A", source=name, text="first"),
        Document(id=f"{name}:2", title="", source=name, text="second é"),
        Document(id="7", title="", source=name, text=""),
    ]


def test_zstandard_frames_one_after_the_other(tmp_path):
    path = tmp_path / "c.jsonl.zst"
    path.write_bytes(zstandard.compress(LINES) * 3 + zstandard.compress(LINES * 20_000))
    assert len(read(path)) == len(RECORDS) * 20_003


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_cut_off_file_is_named(tmp_path, suffix):
    path = tmp_path / f"c.jsonl{suffix}"
    path.write_bytes(PACK[suffix](LINES * 1000)[:-20])
    with pytest.raises(CorpusError, match=rf"c\.jsonl\{suffix}"):
        read(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst", ".parquet"])
def test_a_file_of_another_kind_is_named(tmp_path, suffix):
    path = tmp_path / (f"c.jsonl{suffix}" if suffix != ".parquet" else "c.parquet")
    path.write_bytes(bz2.compress(LINES))
    with pytest.raises(CorpusError, match="cannot be read"):
        read(path)


def test_parquet(tmp_path):
    path = tmp_path / "c.parquet"
    table = pyarrow.table({"text": ["one", "two"], "id": ["x", "y"], "other": [1, 2]})
    pyarrow.parquet.write_table(table, path)
    assert [(d.id, d.text) for d in read(path)] == [("x", "one"), ("y", "two")]
    pyarrow.parquet.write_table(table.drop_columns("text"), path)
    with pytest.raises(CorpusError, match=r"c\.parquet: field 'text' is missing"):
        read(path)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name in ("b.txt", "a/z.md", "a.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.text for d in read(tmp_path)] == ["a.txt", "a/z.md", "b.txt"] or [
        d.text for d in read(tmp_path)
    ] == ["a/z.md", "a.txt", "b.txt"]
    assert read(tmp_path) == read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\x80\x02binary junk\x00\xff\n", r"line 4: byte 0 is not UTF-8"),
        (b"{'id': 1}\n", r"line 4 is not JSON"),
        (b"[1, 2]\n", r"line 4 is no JSON object but a list"),
        (b'{"id": "x"}\n', r"line 4: field 'text' is missing"),
        (b'{"text": 5}\n', r"line 4: field 'text' is a int, not a string"),
        (b'{"id": true, "text": ""}\n', r"line 4: field 'id' is a bool"),
        (b'{"title": ["x"], "text": ""}\n', r"line 4: field 'title' is a list"),
        (b'{"text": "\\ud800"}\n', r"line 4: field 'text' holds the lone surrogate U\+D800"),
        (b"[" * 100_000 + b"\n", r"line 4 is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "c.jsonl"
    path.write_bytes(LINES + line)
    with pytest.raises(CorpusError, match=message):
        read(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "folder", "c.csv"])
def test_what_is_no_corpus_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "c.csv").write_text("a,b")
    with pytest.raises(CorpusError, match=name):
        corpus_files([tmp_path / name])
    with pytest.raises(CorpusError, match="no corpus was given"):
        corpus_files([])


JUNK_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".parquet", ".txt")


@pytest.mark.parametrize("suffix", JUNK_SUFFIXES)
@settings(max_examples=60)
@given(junk=st.binary(max_size=300), is_packed=st.booleans())
def test_binary_junk_is_an_error_with_the_files_name(tmp_path_factory, suffix, junk, is_packed):
    """Or text, by chance: never another exception, and never a lone surrogate."""
    path = tmp_path_factory.mktemp("junk") / f"c{suffix}"
    pack = PACK.get(path.suffix, bytes)
    path.write_bytes(pack(junk) if is_packed else junk)
    try:
        documents, message = read(path), path.name
    except CorpusError as error:
        documents, message = [], str(error)
    assert path.name in message
    for document in documents:
        document.text.encode()
