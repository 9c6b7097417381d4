import json

import pytest

from api.batch.results import ResultFile
from api.errors import BatchError

A, B = {"id": "a", "text": "x"}, {"id": "b", "text": "ü"}
FAILED = {"id": "c", "error": {"code": "overloaded", "message": "full"}}


def content(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def test_what_is_appended_is_there_the_next_time(path):
    with ResultFile(path) as results:
        assert results.done == set()
        results.append(A)
        results.append(B)
    assert path.read_bytes() == content(A, B)
    with ResultFile(path) as results:
        assert results.done == {"a", "b"}
    assert path.read_bytes() == content(A, B)


def test_a_torn_last_line_is_taken_out_wherever_it_was_torn(path):
    whole = content(A, B)
    start = len(content(A))
    for end in range(start + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        with ResultFile(path) as results:
            assert results.done == {"a"}
            results.append(B)
        assert path.read_bytes() == whole


def test_a_last_line_that_lacks_its_end_alone_is_kept(path):
    path.write_bytes(content(A, B)[:-1])
    with ResultFile(path) as results:
        assert results.done == {"a", "b"}
    assert path.read_bytes() == content(A, B)


def test_errors_are_taken_out_and_results_stay_in_order(path):
    path.write_bytes(content(A, FAILED, B))
    with ResultFile(path) as results:
        assert results.done == {"a", "b"}
        results.append({"id": "c", "text": "z"})
    assert path.read_bytes() == content(A, B, {"id": "c", "text": "z"})
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (b"not json\n" + content(A), "line 1 is not JSON"),
        (content(A, {"id": 3, "text": "x"}), "line 2 is no line of talipot batch"),
        (content({"id": "a"}), "line 1 is no line of talipot batch"),
        (content(A, B, A), "line 3 has id='a' for the second time"),
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(path, found, words):
    path.write_bytes(found)
    with pytest.raises(BatchError, match=words):
        ResultFile(path)
    assert path.read_bytes() == found


def test_one_process_has_it_at_a_time(path):
    path.write_bytes(content(A, FAILED))  # the lock survives the file being replaced
    with ResultFile(path), pytest.raises(BatchError, match="in use"):
        ResultFile(path)
    with ResultFile(path):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(BatchError, match="no-such"):
        ResultFile(tmp_path / "no-such" / "out")
