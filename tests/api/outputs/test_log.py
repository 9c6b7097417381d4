import threading
import time

import pytest

from api.errors import OutputLogError
from api.outputs.log import Retention, open_log
from tests.api.outputs.records import record, records

DONE = {"status": "done", "scores": {"toxicity": 0.5}}


def calls(entries):
    return [entry.record.call for entry in entries]


def test_each_group_reads_each_record_once_in_order(store):
    log = store.open()
    given = records(5)
    log.append(given)
    assert [entry.record for entry in log.read("safety", "a", 3)] == given[:3]
    assert [entry.record for entry in log.read("safety", "b", 3)] == given[3:]
    assert log.read("safety", "a", 3) == []
    assert [entry.record for entry in log.read("memorization", "a", 9)] == given


def test_a_record_that_is_appended_again_is_there_once(store):
    log = store.open()
    log.append(records(2))
    log.append(records(3))
    assert calls(log.read("safety", "a", 9)) == ["cmpl-0", "cmpl-1", "cmpl-2"]
    assert log.stats().depth == 3


def test_what_a_consumer_lets_lie_goes_to_another(store):
    log = store.open(lease_s=0.2)
    log.append(records(2))
    first = log.read("safety", "dies", 9)
    assert [entry.deliveries for entry in first] == [1, 1]
    log.ack("safety", [(first[0], DONE)])
    assert log.read("safety", "lives", 9) == []
    deadline_s = time.monotonic() + 10
    while not (again := log.read("safety", "lives", 9)):
        assert time.monotonic() < deadline_s
    assert calls(again) == ["cmpl-1"]
    assert again[0].deliveries == 2


def test_results_are_found_and_what_is_missing_is_told(store):
    log = store.open()
    assert log.find("safety", "cmpl-1") is None
    log.append([record(index=index, choices=3) for index in (0, 1)])
    found = log.find("safety", "cmpl-1")
    assert (found.choices, found.results) == (3, {})
    entries = log.read("safety", "a", 9)
    log.ack("safety", [(entries[1], DONE)])
    assert log.find("safety", "cmpl-1").results == {1: DONE}
    assert log.find("memorization", "cmpl-1").results == {}
    log.ack("safety", [(entry, DONE) for entry in entries])
    assert log.find("safety", "cmpl-1").results == {0: DONE, 1: DONE}


def test_the_figures_say_what_is_open(store):
    log = store.open()
    assert log.stats().depth == 0
    log.append(records(5))
    entries = log.read("safety", "a", 3)
    log.ack("safety", [(entries[0], DONE)])
    stats = log.stats()
    assert stats.depth == 5
    assert stats.lag == {"safety": 2, "memorization": 5}
    assert stats.pending == {"safety": 2, "memorization": 0}


def test_no_more_is_kept_than_may_be(store):
    log = store.open(max_records=100)
    for start in range(0, 1000, 50):
        log.append([record(f"cmpl-{number}") for number in range(start, start + 50)])
    # Redis trims by whole nodes of its stream, so a little more may stay.
    assert 100 <= log.stats().depth <= 250
    assert calls(log.read("safety", "a", 999))[-1] == "cmpl-999"


def test_what_is_old_is_not_found(store):
    log = store.open(max_age_s=0.3)
    log.append([record("cmpl-old")])
    (entry,) = log.read("safety", "a", 1)
    deadline_s = time.monotonic() + 10
    while log.find("safety", "cmpl-old") is not None:
        assert time.monotonic() < deadline_s
        log.append([record(f"cmpl-{time.monotonic_ns()}")])
    log.ack("safety", [(entry, DONE)])
    assert log.find("safety", "cmpl-old") is None


def test_texts_of_every_kind_survive(store):
    log = store.open()
    text = "naïve 🌴 \x00 \ud800 \u200b \u202e"
    log.append([record(text=text, prompt=None)])
    (entry,) = log.read("safety", "a", 1)
    assert entry.record.text == text
    assert entry.record.prompt is None


def test_consumers_at_the_same_time_share_without_overlap(store):
    store.open().append(records(400))
    taken: list[list[str]] = [[], []]

    def take(mine, log):
        while entries := log.read("safety", threading.current_thread().name, 7):
            mine += calls(entries)
            log.ack("safety", [(entry, DONE) for entry in entries])

    threads = [
        threading.Thread(target=take, args=(mine, store.open()), name=f"c{number}")
        for number, mine in enumerate(taken)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken[0] + taken[1]) == sorted(each.call for each in records(400))


def test_a_store_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("TALIPOT_REDIS_URL", raising=False)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputLogError, match=r"outputs\.sqlite cannot be used"):
        open_log(file, Retention(), lease_s=1)
    (tmp_path / "outputs.sqlite").write_bytes(b"no database, but long enough to look at" * 9)
    with pytest.raises(OutputLogError, match="not a database"):
        open_log(tmp_path, Retention(), lease_s=1)
    monkeypatch.setenv("TALIPOT_REDIS_URL", "http://x")
    with pytest.raises(OutputLogError, match="no URL of Redis"):
        open_log(tmp_path, Retention(), lease_s=1)
    monkeypatch.setenv("TALIPOT_REDIS_URL", "redis://127.0.0.1:1")
    with pytest.raises(OutputLogError, match="failed"):
        open_log(tmp_path, Retention(), lease_s=1).stats()
