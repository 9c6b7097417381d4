"""What a run's folder keeps, refuses and repairs."""

import json

import pytest

from api.audit.folder import RunFolder
from api.errors import AuditError
from safety.audits.units import Record

IDENTITY = {"audit": "toxicity", "settings": {"k": 25}, "scorer": {"name": "a", "version": "1"}}


def records_in(path):
    with RunFolder(path, IDENTITY) as folder:
        return dict(folder.records)


def test_finished_units_are_there_again(tmp_path):
    record = Record(id="a", texts=("x\ud800", "y"), num_tokens=(1, 2), scores=((0.5,), (0.25,)))
    with RunFolder(tmp_path, IDENTITY) as folder:
        folder.append([record, Record(id="b", error="too long")])
    assert records_in(tmp_path) == {"a": record}  # what was refused is tried again


def test_a_torn_line_is_cut_off(tmp_path):
    with RunFolder(tmp_path, IDENTITY) as folder:
        folder.append([Record(id="a")])
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"id": "b", "te')
    assert list(records_in(tmp_path)) == ["a"]
    assert journal.read_bytes() == whole


def test_other_settings_are_refused_by_name(tmp_path):
    with RunFolder(tmp_path, IDENTITY):
        pass
    other = {**IDENTITY, "settings": {"k": 10}}
    with pytest.raises(AuditError, match=r"settings\.k was 25 and is 10 now"):
        RunFolder(tmp_path, other)
    other = {**IDENTITY, "scorer": {"name": "a", "version": "2"}}
    with pytest.raises(AuditError, match=r"scorer\.version was '1' and is '2' now"):
        RunFolder(tmp_path, other)


def test_two_runs_do_not_share_a_folder(tmp_path):
    with RunFolder(tmp_path, IDENTITY), pytest.raises(AuditError, match="is in use"):
        RunFolder(tmp_path, IDENTITY)


def test_a_damaged_line_is_named(tmp_path):
    with RunFolder(tmp_path, IDENTITY) as folder:
        folder.append([Record(id="a")])
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(json.dumps({"id": "a"}).encode() + b"\n" + journal.read_bytes())
    with pytest.raises(AuditError, match=r"journal\.jsonl line 1 is no line of talipot audit"):
        RunFolder(tmp_path, IDENTITY)
