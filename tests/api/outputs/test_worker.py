"""Workers that are killed, stores that go away: nothing is lost and nothing doubled."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from api.outputs.log import Retention
from api.outputs.pipelines import SafetyPipeline
from api.outputs.redis_log import RedisLog
from api.outputs.worker import Worker
from api.outputs.writer import OutputWriter
from tests.api.outputs.records import record, records
from tests.lexicon_scorer import LexiconScorer
from tests.redis_server import RedisServer

SCRIPT = Path(__file__).with_name("slow_worker.py")
ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def worker_process(store, trace, lease_s=1.0):
    env = {**os.environ, **store.env, "PYTHONPATH": str(ROOT)}
    popen = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store.folder), str(lease_s), str(trace)], env=env
    )
    try:
        yield popen
    finally:
        popen.kill()
        popen.wait()


def wait_until(condition, timeout_s=60.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def lines(trace):
    return trace.read_text().splitlines() if trace.exists() else []


def test_a_killed_workers_records_are_done_by_another(store, tmp_path):
    log = store.open()
    given = records(160)
    log.append(given)
    traces = [tmp_path / name for name in ("dies", "lives")]
    with worker_process(store, traces[0]) as dies, worker_process(store, traces[1]) as lives:
        wait_until(lambda: len(lines(traces[0])) > 24 and lines(traces[1]))
        dies.send_signal(signal.SIGKILL)
        dies.wait()
        by_first = len(lines(traces[0]))
        assert by_first < len(given)

        def are_all_done():
            return log.stats().lag["safety"] == log.stats().pending["safety"] == 0

        wait_until(are_all_done)
        for each in given:
            (result,) = log.find("safety", each.call).results.values()
            expected = 0.7 if "-1" in each.text else 0.01
            assert result["scores"]["toxicity"] == pytest.approx(expected)
        # Only what the first one had in its hands was scored again.
        scored = lines(traces[0]) + lines(traces[1])
        assert len(given) <= len(scored) <= len(given) + 8
        lives.send_signal(signal.SIGTERM)
        assert lives.wait(timeout=20) == 0


def test_a_record_that_cannot_be_processed_is_given_up_and_holds_up_nothing(store, caplog):
    log = store.open(lease_s=0.05)
    log.append([record("good"), record("bad")])
    scorer = LexiconScorer()
    scorer.fail_on = "of bad"
    worker = Worker(log, [SafetyPipeline(scorer)], batch=8, max_deliveries=3)

    def is_done():
        worker.run_once()
        return log.find("safety", "bad").results

    wait_until(is_done)
    assert log.find("safety", "bad").results[0] == {"status": "failed", "error": "RuntimeError"}
    assert log.find("safety", "good").results[0]["status"] == "done"
    tries = [batch for batch in scorer.batches if batch == ["the text of bad"]]
    assert len(tries) == 3
    assert caplog.text.count("safety failed on choice 0 of bad") == 3


def test_a_redis_that_dies_and_comes_back_costs_nothing(tmp_path, monkeypatch):
    server = RedisServer(tmp_path)
    server.start()
    log = RedisLog(server.url, Retention(), lease_s=0.5)
    writer = OutputWriter(RedisLog(server.url, Retention(), lease_s=0.5))
    writer.start()
    worker = Worker(log, [SafetyPipeline(LexiconScorer())], batch=8, max_deliveries=50)
    monkeypatch.setattr("api.outputs.worker._STORE_AWAY_S", 0.05)
    thread = threading.Thread(target=worker.run)
    thread.start()
    given = records(600)
    try:
        for number, each in enumerate(given):
            writer.put(each)
            if number == 200:
                wait_until(lambda: writer.written_total > 100)
                server.kill()
            if number == 400:
                assert writer.holds(each.call)
                wait_until(lambda: writer.stats is None)
                server.start()
        wait_until(lambda: writer.written_total == len(given))
        wait_until(lambda: log.find("safety", given[-1].call).results)
        wait_until(lambda: not any(log.stats().pending.values()))
        assert writer.dropped_total == 0
        assert log.stats().depth == len(given)
        assert all(len(log.find("safety", each.call).results) == 1 for each in given)
    finally:
        worker.stop()
        thread.join()
        writer.close()
        server.kill()


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(caplog):
    log = RedisLog("redis://127.0.0.1:1", Retention(), lease_s=1)
    writer = OutputWriter(log, max_waiting=10)
    for each in records(15):
        writer.put(each)
    assert (writer.waiting, writer.dropped_total) == (10, 5)
    writer.close()
    assert "10 generations did not reach the output log" in caplog.text


def test_texts_are_hashed_after_they_were_looked_at(store):
    log = store.open()
    scorer = LexiconScorer({"text": {"toxicity": 0.6}})
    writer = OutputWriter(log, hash_after=lambda: [SafetyPipeline(scorer)])
    writer.start()
    writer.put(record(text="a secret text"))
    wait_until(lambda: writer.written_total == 1)
    Worker(log, [SafetyPipeline(LexiconScorer())], batch=8, max_deliveries=3).run_once()
    (entry,) = log.read("memorization", "a", 9)
    assert entry.record.is_hashed
    assert "secret" not in entry.record.to_json()
    assert entry.record.text.startswith("sha256:")
    assert log.find("safety", "cmpl-1").results[0]["scores"]["toxicity"] == 0.6
    writer.close()
